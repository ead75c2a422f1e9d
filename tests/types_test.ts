/**
 * The exact types of the public API. `deno check` is what tests this module: it fails where a type is another, where
 * something that must not compile does, or where an `any` gets out.
 *
 * @module
 */

// deno-lint-ignore-file require-await
import { assert, assertEquals } from "@std/assert";
import {
  actor,
  type ActorHandle,
  allocate,
  asCompleted,
  availableResources,
  cancel,
  type Cluster,
  context,
  died,
  get,
  getActor,
  init,
  kill,
  map,
  type NodeInfo,
  nodes,
  put,
  ready,
  type Ref,
  Ref as RefClass,
  type RefStream,
  remote,
  type TaskContext,
  wait,
} from "../runtime/mod.ts";

/** Whether two types are the same, `any` and `unknown` told apart. */
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Compiles only if `T` is `true`. */
function holds<T extends true>(_?: T): void {}

/** Compiles only if the value's type is exactly `T`. */
function has<T>() {
  return <V>(_value: V, ..._same: Equal<V, T> extends true ? [] : [never]): void => {};
}

interface Model {
  readonly weights: Float32Array;
  readonly name?: string;
}

const join = remote(async function join(a: number, b?: string): Promise<string> {
  return `${a}${b}`;
});
const train = remote(function train(model: Model, rows: readonly number[]): Model {
  return rows.length > 0 ? model : { ...model, name: "untrained" };
});
const sum = remote(function sum(...values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
});
const pair = remote(function pair(a: number): [number, string] {
  return [a, `${a}`];
});
const pairLater = remote(async function pairLater(a: number): Promise<readonly [number, Model]> {
  return [a, { weights: new Float32Array(1) }];
});
const nothing = remote(function nothing(): void {});
const fails = remote(function fails(): never {
  throw new Error("always");
});
const perhaps = remote(function perhaps(x?: number): number | undefined {
  return x;
});
const defaulted = remote(function defaulted(x: number, by = 1): number {
  return x + by;
});
const isEven = remote(function isEven(x: number): boolean {
  return x % 2 === 0;
});
const putAway = remote(async function putAway(x: number): Promise<Ref<number>> {
  return await put(x);
});
const numbers = remote(function* numbers(n: number): Generator<number> {
  for (let i = 0; i < n; i++) yield i;
});
const models = remote(async function* models(): AsyncGenerator<Model> {
  yield { weights: new Float32Array(1) };
});
const untyped = remote(function untyped(value: unknown): unknown {
  return value;
});
const callback = remote(function callback(x: Ref<number>[]): number {
  return x.length;
});

class Plain {
  protected hidden(): void {}
  field = 1;
  #secret = 1;
  constructor(readonly start: number, readonly label?: string) {}
  add(by = 1): number {
    return this.#secret += by;
  }
  async later(model: Model): Promise<Model> {
    return model;
  }
  *items(): Generator<string> {
    yield "x";
  }
  pair(): [number, string] {
    return [1, "x"];
  }
}
const PlainActor = actor(Plain);
const Inferred = actor(
  class Inferred {
    hello(): string {
      return "hello";
    }
  },
);

/** Never called: what stands here is only compiled. */
export async function compileActors(): Promise<void> {
  const number = await put(1);
  const plain = PlainActor.remote(1);
  has<ActorHandle<Plain>>()(plain);
  has<ActorHandle<Plain>>()(PlainActor.options({ cpus: 0.1, name: "x" }).remote(number, "label"));
  has<ActorHandle<Plain>>()(await getActor(PlainActor, "x", { namespace: "n" }));
  has<ActorHandle<Plain>>()(await PlainActor.options({ name: "x" }).getOrCreate(1));
  has<ActorHandle<Plain>>()(PlainActor.get("key"));
  has<Ref<number>>()(plain.add.remote());
  has<Ref<number>>()(plain.add.remote(number));
  has<Ref<Model>>()(plain.later.remote(await put<Model>({ weights: new Float32Array(1) })));
  has<RefStream<string>>()(plain.items.remote());
  has<[Ref<number>, Ref<string>]>()(plain.pair.options({ returns: 2 }).remote());
  has<Ref<[number, string]>>()(plain.pair.options({ timeout: "5s", retries: 2 }).remote());
  has<Ref<string>>()(Inferred.remote().hello.remote());
  has<Promise<void>>()(ready(plain));
  has<string>()((await died(plain)).reason);
  has<void>()(kill(plain, { restart: true }));
  has<ActorHandle<Plain>>()(await get(await put(plain)));
  // @ts-expect-error a field is no method
  plain.field;
  // @ts-expect-error protected
  plain.hidden;
  // @ts-expect-error no such method
  plain.sub;
  // @ts-expect-error an argument of the wrong type
  plain.add.remote("1");
  // @ts-expect-error a constructor's argument is missing
  PlainActor.remote();
  // @ts-expect-error no such option
  PlainActor.options({ cpu: 1 });
  // @ts-expect-error calls have no resources
  plain.add.options({ cpus: 1 });
  // @ts-expect-error a handle has no then
  plain.then;
  // @ts-expect-error a handle of another class
  has<ActorHandle<Plain>>()(Inferred.remote() as ActorHandle<Plain>);
  // @ts-expect-error not a class
  actor(function notOne() {});
  // @ts-expect-error not a handle
  kill(number);
}

/** Never called: what stands here is only compiled. */
export async function compileOnly(signal: AbortSignal): Promise<void> {
  const number = await put(1);
  const text = await put("x");
  const model = await put<Model>({ weights: new Float32Array(1) });

  // .remote() takes every argument as itself or as a Ref of it, and gives a Ref of what the function resolves to.
  holds<
    Equal<Parameters<typeof join.remote>, [a: number | Ref<number>, b?: string | Ref<string | undefined>]>
  >();
  has<Ref<string>>()(join.remote(1));
  has<Ref<string>>()(join.remote(number, text));
  has<Ref<Model>>()(train.remote(model, [1, 2]));
  has<Ref<number>>()(sum.remote());
  has<Ref<number>>()(sum.remote(1, number, sum.remote(2)));
  has<Ref<number>>()(defaulted.remote(1));
  has<Ref<void>>()(nothing.remote());
  has<Ref<never>>()(fails.remote());
  has<Ref<number | undefined>>()(perhaps.remote());
  has<Ref<boolean>>()(isEven.remote(1));
  has<Ref<Ref<number>>>()(putAway.remote(1));
  has<Ref<unknown>>()(untyped.remote(number));
  has<Ref<number>>()(callback.remote([number]));
  // @ts-expect-error an argument is missing
  join.remote();
  // @ts-expect-error an argument is of the wrong type
  join.remote("1");
  // @ts-expect-error a Ref is of the wrong type
  join.remote(text);
  // @ts-expect-error one argument too many
  join.remote(1, "x", 2);
  // @ts-expect-error a promise is neither the value nor a Ref
  join.remote(Promise.resolve(1));
  // @ts-expect-error a Ref is resolved only as an argument itself, not inside one
  train.remote({ weights: await put(new Float32Array(1)) }, []);
  // @ts-expect-error one of the rest arguments is of the wrong type
  sum.remote(1, "2");

  // Called directly, a remote function is the function.
  has<Promise<string>>()(join(1, "x"));
  has<number>()(sum(1, 2));
  has<Generator<number>>()(numbers(1));
  // @ts-expect-error called directly, it takes no Refs
  sum(number);

  // Generators give streams of Refs.
  has<RefStream<number>>()(numbers.remote(3));
  has<RefStream<number>>()(numbers.remote(number));
  has<RefStream<Model>>()(models.remote());
  for await (const item of models.remote()) has<Ref<Model>>()(item);
  // @ts-expect-error a stream is iterated over, not got
  await get(numbers.remote(3));

  // get of one, an array, a tuple, a record.
  has<number>()(await get(number));
  has<number>()(await get(number, { timeout: "3s" }));
  has<number[]>()(await get([1, 2].map((x) => defaulted.remote(x))));
  has<[number, string]>()(await get([number, text]));
  has<[number, string, Model]>()(await get([number, text, model] as const));
  has<[]>()(await get([]));
  has<{ n: number; m: Model }>()(await get({ n: number, m: model }));
  has<[number]>()(await get(await get([putAway.remote(1)])));
  const some: readonly Ref<Model>[] = [model];
  has<Model[]>()(await get(some));
  const byName: Record<string, Ref<number>> = {};
  has<Record<string, number>>()(await get(byName));
  const either = Math.random() < 0.5 ? number : text;
  has<number | string>()(await get(either));
  // @ts-expect-error a value is no Ref
  await get(1);
  // @ts-expect-error not all are Refs
  await get([number, 1]);
  // @ts-expect-error a Promise of a Ref is to be awaited
  await get(put(1));
  // @ts-expect-error no such option
  await get(number, { timeot: 1 });
  // @ts-expect-error no such unit
  await get(number, { timeout: "3 days" });

  // wait, asCompleted, map, cancel.
  has<[Ref<number>[], Ref<number>[]]>()(await wait([number], { count: 1, timeout: 500 }));
  has<[Ref<Model>[], Ref<Model>[]]>()(await wait(some));
  has<[(Ref<number> | Ref<string>)[], (Ref<number> | Ref<string>)[]]>()(await wait([number, text]));
  for await (const ref of asCompleted([number, text])) has<number | string>()(await get(ref));
  for await (const ref of asCompleted(some)) has<Ref<Model>>()(ref);
  for await (const ref of asCompleted(new Set([number]), { timeout: "1m" })) has<Ref<number>>()(ref);
  for await (const value of map(perhaps, [1, number])) has<number | undefined>()(value);
  for await (const value of map(putAway, [1], { ordered: false, window: 8 })) has<Ref<number>>()(value);
  for await (const value of map(perhaps.options({ cpus: 0.5 }), endless())) has<number | undefined>()(value);
  // @ts-expect-error the inputs are of the wrong type
  map(perhaps, ["x"]);
  // @ts-expect-error values cannot be waited for
  await wait([1]);
  has<void>()(cancel(number, { force: true }));
  has<void>()(cancel(numbers.remote(1)));
  // @ts-expect-error neither a Ref nor a stream
  cancel(1);

  // put and allocate.
  has<Ref<number>>()(number);
  has<Ref<Map<string, Date>>>()(await put(new Map<string, Date>()));
  has<Ref<Ref<number>>>()(await put(number));
  has<Float32Array<ArrayBuffer>>()(await allocate(Float32Array, 10));
  has<BigInt64Array<ArrayBuffer>>()(await allocate(BigInt64Array, 10));
  has<Ref<Uint8Array<ArrayBuffer>>>()(await put(await allocate(Uint8Array, 10)));
  // @ts-expect-error not a class of typed arrays
  await allocate(Array, 10);
  // @ts-expect-error not a length
  await allocate(Float32Array, "10");

  // options.
  has<Ref<string>>()(join.options({ cpus: 2, resources: { licence: 1 }, timeout: "2m" }).remote(1));
  has<RefStream<number>>()(numbers.options({ priority: 1 }).remote(1));
  has<[Ref<number>, Ref<string>]>()(pair.options({ returns: 2 }).remote(1));
  has<[Ref<number>, Ref<Model>]>()(pairLater.options({ returns: 2 }).options({ cpus: 0 }).remote(1));
  has<Ref<[number, string]>>()(pair.remote(1));
  // @ts-expect-error no such option
  join.options({ cpu: 1 });
  // @ts-expect-error no such option
  remote(function unknownOption() {}, { retry: 1 });
  // @ts-expect-error an amount is a number
  join.options({ cpus: "2" });
  // @ts-expect-error only functions are remote
  remote(1);

  // A Ref is not a promise, so an async function that returns one gives the Ref.
  has<false>()(false as Ref<number> extends PromiseLike<unknown> ? true : false);
  holds<Equal<Awaited<Ref<number>>, Ref<number>>>();
  has<Ref<number>>()(await (async () => number)());
  // @ts-expect-error a Ref has no then
  number.then(() => {});
  // @ts-expect-error Refs of one type do not pass for those of another
  has<Ref<string>>()(number as Ref<string>);
  // @ts-expect-error Refs are made by the runtime only
  new RefClass<number>();

  // The rest.
  has<Cluster>()(await init({ cpus: 2, logLevel: "off" }));
  has<NodeInfo[]>()(await nodes());
  has<Record<string, number>>()(await availableResources());
  has<TaskContext>()(context());
  has<AbortSignal>()(context().signal);
  signal.throwIfAborted();

  // No `any` gets out.
  holds<Equal<typeof number, Ref<number>>>();
  // @ts-expect-error what is unknown stays unknown
  (await get(untyped.remote(1))).length;
  // @ts-expect-error a Ref has no such property
  number.value;
}

async function* endless(): AsyncGenerator<number, void> {
  for (let i = 0;; i++) yield i;
}

Deno.test("Equal tells any, unknown, never and readonly apart", () => {
  // deno-lint-ignore no-explicit-any -- it is what must be told apart
  holds<Equal<Equal<any, number>, false>>();
  // deno-lint-ignore no-explicit-any -- as above
  holds<Equal<Equal<any, unknown>, false>>();
  holds<Equal<Equal<never, number>, false>>();
  holds<Equal<Equal<{ a: 1 }, { readonly a: 1 }>, false>>();
  holds<Equal<Equal<[a?: number], [a: number | undefined]>, false>>();
  holds<Equal<{ a: 1 }, { a: 1 }>>();
  // @ts-expect-error a value of another type
  has<string>()(1);
});

Deno.test("a Ref has no then at run time either, and its class cannot be used to make one", () => {
  assert(!("then" in RefClass.prototype));
  assertEquals([typeof compileOnly, typeof compileActors], ["function", "function"]);
});
