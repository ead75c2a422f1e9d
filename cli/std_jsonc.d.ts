/** The part of @std/jsonc that rayd uses; the npm package carries no declarations. */
export function parse(text: string): unknown;
