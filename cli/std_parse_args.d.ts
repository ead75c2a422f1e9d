/** The part of @std/cli/parse-args that rayd uses; the npm package carries no declarations. */
export interface ParseOptions {
  readonly boolean?: readonly string[];
  readonly string?: readonly string[];
  /** Options that may be repeated: each is a list. */
  readonly collect?: readonly string[];
  readonly alias?: Readonly<Record<string, string>>;
  /** Stops at the first argument that is no option. */
  readonly stopEarly?: boolean;
  /** Whether what follows `--` is kept, under that name. */
  readonly "--"?: boolean;
  /** Told of each option that is not known; `false` leaves it out. */
  readonly unknown?: (argument: string, key?: string, value?: unknown) => unknown;
}
export function parseArgs(
  args: readonly string[],
  options?: ParseOptions,
): Record<string, unknown> & { _: (string | number)[]; "--"?: string[] };
