/**
 * The functions that piscina and tinypool find by name.
 *
 * @module
 */

const RESULT_BYTES = 1_000_000;

export function small() {
  return "ok";
}

export function megabyte() {
  return new Uint8Array(RESULT_BYTES);
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
