/**
 * A checker of histories: whether what clients saw of one key could have come about if each operation had taken effect
 * at one moment between its call and its return.
 *
 * The search is that of Wing and Gong (1993) with Lowe's memory of configurations that were seen (2017), as in Porcupine:
 * an operation may be taken next if it was called before any operation that is still to be taken returned. Operations on
 * different keys are checked apart, as linearizability is local (Herlihy and Wing, 1990).
 *
 * @module
 */

/** What a client did to a register, and saw. */
export type Action =
  | { readonly kind: "read"; readonly value: string | undefined }
  | { readonly kind: "write"; readonly value: string | undefined }
  /** Writes `value` if the register holds `expected`; `done` says whether it did, where that is known. */
  | {
    readonly kind: "swap";
    readonly expected: string | undefined;
    readonly value: string;
    readonly done: boolean | undefined;
  };

/** One operation of a history. */
export interface Operation {
  readonly called: number;
  /** Infinity of one whose outcome nobody knows: it may have taken effect at any time since, or never. */
  readonly returned: number;
  readonly action: Action;
}

interface Node {
  readonly operation: number;
  /** Of a call: its return. */
  readonly match: Node | undefined;
  previous: Node | undefined;
  next: Node | undefined;
}

/** Whether the history of one register, which begins empty, is linearizable. */
export function linearizable(history: readonly Operation[]): boolean {
  const head = listOf(history);
  const taken = new Uint8Array(history.length);
  const seen = new Set<string>();
  const stack: { node: Node; state: string | undefined }[] = [];
  let state: string | undefined = undefined;
  let remaining = history.filter(({ returned }) => returned !== Infinity).length;
  let node = head.next;
  while (remaining > 0) {
    if (node === undefined || node.match === undefined) {
      // A return is reached, or the end: nothing more can go first, so the last choice was wrong.
      const last = stack.pop();
      if (last === undefined) return false;
      state = last.state;
      taken[last.node.operation] = 0;
      if (history[last.node.operation]!.returned !== Infinity) remaining++;
      put(last.node);
      node = last.node.next;
      continue;
    }
    const { action, returned } = history[node.operation]!;
    const after = applied(state, action);
    if (after !== undefined) {
      taken[node.operation] = 1;
      const configuration = `${after.state ?? "\0"}\n${bits(taken)}`;
      if (!seen.has(configuration)) {
        seen.add(configuration);
        stack.push({ node, state });
        state = after.state;
        if (returned !== Infinity) remaining--;
        take(node);
        node = head.next;
        continue;
      }
      taken[node.operation] = 0;
    }
    node = node.next;
  }
  return true;
}

/** The register after an action, if the action could have seen what it saw. */
function applied(
  state: string | undefined,
  action: Action,
): { readonly state: string | undefined } | undefined {
  switch (action.kind) {
    case "read":
      return action.value === state ? { state } : undefined;
    case "write":
      return { state: action.value };
    case "swap": {
      const done = state === action.expected;
      if (action.done !== undefined && action.done !== done) return undefined;
      return { state: done ? action.value : state };
    }
  }
}

/** Calls and returns as a list in the order of time; at one time, calls come first. */
function listOf(history: readonly Operation[]): Node {
  const events = history.flatMap(({ called, returned }, operation) => [
    { time: called, operation, returns: false },
    { time: returned, operation, returns: true },
  ]).sort((a, b) => a.time - b.time || Number(a.returns) - Number(b.returns));
  const head: Node = { operation: -1, match: undefined, previous: undefined, next: undefined };
  const returns = new Map<number, Node>();
  for (const { operation, returns: isReturn } of events) {
    if (isReturn) {
      returns.set(operation, { operation, match: undefined, previous: undefined, next: undefined });
    }
  }
  let last = head;
  for (const { operation, returns: isReturn } of events) {
    const matching = returns.get(operation)!;
    const node: Node = isReturn
      ? matching
      : { operation, match: matching, previous: undefined, next: undefined };
    node.previous = last;
    last.next = node;
    last = node;
  }
  return head;
}

/** Takes a call and its return out of the list. */
function take(node: Node): void {
  for (const each of [node, node.match!]) {
    each.previous!.next = each.next;
    if (each.next !== undefined) each.next.previous = each.previous;
  }
}

/** Puts them back. */
function put(node: Node): void {
  for (const each of [node.match!, node]) {
    each.previous!.next = each;
    if (each.next !== undefined) each.next.previous = each;
  }
}

function bits(taken: Uint8Array): string {
  let text = "";
  for (let at = 0; at < taken.length; at += 16) {
    let code = 0;
    for (let i = 0; i < 16 && at + i < taken.length; i++) code |= taken[at + i]! << i;
    text += String.fromCharCode(code);
  }
  return text;
}
