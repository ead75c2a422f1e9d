/** The part of @std/fmt/bytes that rayd uses; the npm package carries no declarations. */
export function format(bytes: number): string;
