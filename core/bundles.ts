/**
 * Names of the resources of a bundle: one of the sets of resources that a placement group holds together.
 *
 * A bundle's resources are resources of the node that has it, under names of their own: `cpu` of bundle 2 of group G is
 * `cpu@G/2`. So everything that knows resources (schedulers, reports of load, `rayd status`) knows bundles, and a task
 * that is to run in a bundle is one that asks for the bundle's resources.
 *
 * @module
 */

/** Every bundle has plenty of this, so that a task that asks for nothing else can ask to be there. */
export const ANCHOR = "bundle";
const ANCHOR_UNITS = 1_000_000_000;

const NAME = /^(.*)@([0-9a-f]{32})\/(\d+)$/s;

/** The name of a bundle's share of a resource. @param group 32 hexadecimal digits. */
function bundleName(resource: string, group: string, bundle: number): string {
  return `${resource}@${group}/${bundle}`;
}

/** The resource that a name means, apart from which bundle has it. */
export function baseName(name: string): string {
  const at = name.lastIndexOf("@");
  return at < 0 || !NAME.test(name) ? name : name.slice(0, at);
}

/** Whether a name is one of a bundle's. */
export function isBundleName(name: string): boolean {
  return NAME.test(name);
}

/** A name for people: a group by the beginning of its id. */
export function showName(name: string): string {
  const parts = NAME.exec(name);
  return parts === null ? name : `${parts[1]}@${parts[2]!.slice(0, 8)}/${parts[3]}`;
}

/** The group and bundle that a demand is of; `undefined` if it is of none. */
export function bundleOf(
  demand: Readonly<Record<string, number>>,
): { readonly group: string; readonly bundle: number } | undefined {
  for (const name in demand) {
    const parts = NAME.exec(name);
    if (parts !== null) return { group: parts[2]!, bundle: Number(parts[3]) };
  }
  return undefined;
}

/** What a node offers that has a bundle. @param demand What the bundle holds, in units of 1/10000. */
export function offerOf(
  demand: Readonly<Record<string, number>>,
  group: string,
  bundle: number,
): Record<string, number> {
  const offer: Record<string, number> = { [bundleName(ANCHOR, group, bundle)]: ANCHOR_UNITS };
  for (const name in demand) offer[bundleName(name, group, bundle)] = demand[name]!;
  return offer;
}

/** A demand, of a bundle's resources. */
export function within(
  demand: Readonly<Record<string, number>>,
  group: string,
  bundle: number,
): Record<string, number> {
  const renamed: Record<string, number> = {};
  for (const name in demand) renamed[bundleName(name, group, bundle)] = demand[name]!;
  if (Object.keys(renamed).length === 0) renamed[bundleName(ANCHOR, group, bundle)] = 1;
  return renamed;
}
