/**
 * A checker of histories: whether what clients saw of one key could have come about if each operation had taken effect
 * at one moment between its call and its return.
 *
 * The search is that of Wing and Gong (1993) with Lowe's memory of configurations that were seen (2017), as in Porcupine:
 * an operation may be taken next if it was called before any operation that is still to be taken returned. Operations on
 * different keys are checked apart, as linearizability is local (Herlihy and Wing, 1990).
 *
 * An operation of unknown outcome overlaps with all that came after it, and each subset of those would be a configuration
 * of its own. They are taken only where something needs them: just before an operation that could not have seen what it
 * saw otherwise. That loses nothing. One that nothing sees before the next write may as well not have happened, and one
 * that is seen later may as well have happened later, as it never returned.
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

type State = string | undefined;

/** What may come next: an operation, and before it those of unknown outcome that it needs. */
interface Choice {
  readonly node: Node;
  readonly unknown: readonly number[];
  readonly state: State;
}

/** Where the search is: the choice that led there, and those that are left to try from there. */
interface Place {
  readonly made: Choice | undefined;
  readonly choices: Choice[];
}

/** Whether the history of one register, which begins empty, is linearizable. */
export function linearizable(history: readonly Operation[]): boolean {
  const head = listOf(history);
  const unknown = [...history.keys()].filter((i) => history[i]!.returned === Infinity);
  const taken = new Uint8Array(history.length);
  const seen = new Set<string>();
  let remaining = history.length - unknown.length;
  const choicesIn = (state: State): Choice[] => {
    const choices: Choice[] = [];
    let end = head.next;
    while (end?.match !== undefined) end = end.next;
    const free = unknown.filter((i) =>
      taken[i] === 0 && history[i]!.called <= history[end!.operation]!.returned
    );
    for (let node = head.next!; node.match !== undefined; node = node.next!) {
      const { action } = history[node.operation]!;
      for (const { before, unknown } of waysTo(action, state, free, history)) {
        choices.push({ node, unknown, state: applied(before, action)!.state });
      }
    }
    return choices;
  };
  const turn = ({ node, unknown }: Choice, on: boolean) => {
    for (const i of [node.operation, ...unknown]) taken[i] = on ? 1 : 0;
    remaining += on ? -1 : 1;
    if (on) take(node);
    else put(node);
  };
  if (remaining === 0) return true;
  const places: Place[] = [{ made: undefined, choices: choicesIn(undefined) }];
  while (places.length > 0) {
    const { made, choices } = places.at(-1)!;
    const choice = choices.pop();
    if (choice === undefined) {
      // Nothing more can go first, so the last choice was wrong.
      places.pop();
      if (made !== undefined) turn(made, false);
      continue;
    }
    turn(choice, true);
    if (remaining === 0) return true;
    const configuration = `${choice.state ?? "\0"}\n${bits(taken)}`;
    if (seen.has(configuration)) {
      turn(choice, false);
      continue;
    }
    seen.add(configuration);
    places.push({ made: choice, choices: choicesIn(choice.state) });
  }
  return false;
}

/** The ways in which an action could have seen what it saw: the operations of unknown outcome before it, as few as can be. */
function waysTo(
  action: Action,
  state: State,
  free: readonly number[],
  history: readonly Operation[],
): { readonly before: State; readonly unknown: readonly number[] }[] {
  if (applied(state, action) !== undefined) return [{ before: state, unknown: [] }];
  if (action.kind === "swap" && action.done === false) {
    // Anything else than what it expected will do.
    return free.flatMap((i) => {
      const after = changed(state, history[i]!.action);
      return after === undefined || after.state === state ? [] : [{ before: after.state, unknown: [i] }];
    });
  }
  const wanted = action.kind === "read" ? action.value : (action as Action & { kind: "swap" }).expected;
  return chainsTo(wanted, state, free, history).map((unknown) => ({ before: wanted, unknown }));
}

/** The operations of unknown outcome, in order, that could have led from one state to another, each once. */
function chainsTo(
  wanted: State,
  state: State,
  free: readonly number[],
  history: readonly Operation[],
): number[][] {
  return free.flatMap((i) => {
    const { action } = history[i]!;
    if (action.kind === "read" || action.value !== wanted) return [];
    if (action.kind === "write" || action.expected === state) return [[i]];
    const others = free.filter((other) => other !== i);
    return chainsTo(action.expected, state, others, history).map((chain) => [...chain, i]);
  });
}

/** The register after an action of unknown outcome, if that has an effect. */
function changed(state: State, action: Action): { readonly state: State } | undefined {
  if (action.kind === "read" || action.kind === "swap" && action.expected !== state) return undefined;
  return { state: action.value };
}

/** The register after an action, if the action could have seen what it saw. */
function applied(
  state: State,
  action: Action,
): { readonly state: State } | undefined {
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

/** Calls and returns of operations that returned, as a list in the order of time; at one time, calls come first. */
function listOf(history: readonly Operation[]): Node {
  const events = history.flatMap(({ called, returned }, operation) =>
    returned === Infinity ? [] : [
      { time: called, operation, returns: false },
      { time: returned, operation, returns: true },
    ]
  ).sort((a, b) => a.time - b.time || Number(a.returns) - Number(b.returns));
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
