/** The part of @std/data-structures' Deque that rayd uses; the npm package carries no declarations. */
export class Deque<T> {
  readonly length: number;
  pushBack(...items: T[]): number;
  pushFront(...items: T[]): number;
  popBack(): T | undefined;
  popFront(): T | undefined;
  peekFront(): T | undefined;
  peekBack(): T | undefined;
  [Symbol.iterator](): Iterator<T>;
}
