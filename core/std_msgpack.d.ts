/** The part of @std/msgpack that rayd itself uses; the npm package carries no declarations. */
export function encode(value: unknown): Uint8Array;
export function decode(bytes: Uint8Array): unknown;
