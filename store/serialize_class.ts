/**
 * Classes whose instances may travel. An instance cannot be rebuilt from its fields alone (private fields,
 * invariants, open files), so a class has to say how; what says nothing is refused rather than silently flattened.
 *
 * The table belongs to the isolate: a class must be registered where values are packed and where they are unpacked,
 * which top-level code of the module that declares it does by itself.
 *
 * @module
 */

/** How instances of one class travel. `S` is the state: any value that itself can travel. */
export interface ClassCodec<T extends object, S> {
  /** The name that stands for the class in packets; the class's own name unless given. */
  name?: string;
  /** Takes the state out of an instance. It must not lead back to the instance itself. */
  serialize(value: T): S;
  /** Builds an instance from a state. */
  deserialize(state: S): T;
}

/** A registered class, its types forgotten. */
export interface RegisteredClass {
  readonly name: string;
  readonly prototype: object;
  readonly serialize: (value: object) => unknown;
  readonly deserialize: (state: unknown) => object;
}

const byPrototype = new Map<object, RegisteredClass>();
const byName = new Map<string, RegisteredClass>();

/**
 * Lets instances of a class travel inside values. Subclasses are classes of their own.
 *
 * @param ctor The class.
 * @param codec How its instances become state and come back.
 * @throws {TypeError} The class has no name, or another class has taken the name.
 */
export function registerClass<T extends object, S>(
  ctor: new (...args: never[]) => T,
  codec: ClassCodec<T, S>,
): void {
  const name = codec.name ?? ctor.name;
  const prototype: object = ctor.prototype;
  if (name === "") {
    throw new TypeError("Cannot register an anonymous class: pass a name, registerClass(C, { name })");
  }
  const holder = byName.get(name);
  if (holder !== undefined && holder.prototype !== prototype) {
    throw new TypeError(
      `Cannot register class ${name}: another class has that name; pass another one as "name"`,
    );
  }
  const previous = byPrototype.get(prototype);
  if (previous !== undefined) byName.delete(previous.name);
  const registered: RegisteredClass = {
    name,
    prototype,
    serialize: (value) => codec.serialize(value as T),
    deserialize: (state) => codec.deserialize(state as S),
  };
  byPrototype.set(prototype, registered);
  byName.set(name, registered);
}

/** The class that objects with this prototype belong to, if it is registered. */
export function registeredByPrototype(prototype: object): RegisteredClass | undefined {
  return byPrototype.get(prototype);
}

/** The class that goes by this name in packets. */
export function registeredByName(name: string): RegisteredClass | undefined {
  return byName.get(name);
}
