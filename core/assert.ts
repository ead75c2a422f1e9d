/**
 * Assertions for our own bugs; the world's faults get typed errors instead. They stay on in production.
 *
 * @module
 */

// @ts-types="./std_assert.d.ts"
export { assert } from "@std/assert/assert";
