/** The part of @std/assert that rayd itself uses; the npm package carries no declarations. */
export function assert(expr: unknown, msg?: string): asserts expr;
