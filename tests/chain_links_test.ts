/**
 * Connections between members of the control store, as real sockets: that they find each other, that nothing is corrupted
 * under backpressure, that a process which has ended is told from one that is silent, and that strangers are refused.
 *
 * @module
 */

import http from "node:http";
import { crc32 } from "node:zlib";
import { assertEquals } from "@std/assert";
// @ts-types="../gcs/ws.d.ts"
import { WebSocket } from "ws";
import { type Clock, systemClock } from "../core/clock.ts";
import { VERSION } from "../core/version.ts";
import { ChainLinks, type ChainLinksEvents, type ChainLinksOptions } from "../gcs/chain_links.ts";

const TOKEN = "a".repeat(64);

/** A member's links, and what they told. */
class Member {
  readonly links: ChainLinks;
  readonly received: { from: string; data: string | Uint8Array }[] = [];
  readonly dead: string[] = [];
  /** How often it was told that a process may have ended. */
  ends = 0;
  #changed = Promise.withResolvers<void>();

  constructor(readonly id: string, options: Partial<ChainLinksOptions> = {}) {
    const events: ChainLinksEvents = {
      received: (from, data) => {
        this.received.push({ from, data: typeof data === "string" ? data : data.slice() });
        this.#change();
      },
      ends: () => this.ends++,
      dead: (member, incarnation) => {
        this.dead.push(`${member}/${incarnation}`);
        this.#change();
      },
      learned: () => this.#change(),
    };
    this.links = new ChainLinks({
      member: id,
      incarnation: 7,
      cluster: "c",
      token: TOKEN,
      hostname: "127.0.0.1",
      port: 0,
      client: `${id}:1`,
      lifeline: undefined,
      tls: undefined,
      clock: systemClock,
      hasPart: () => true,
      log: () => this.#change(),
      ...options,
    }, events);
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** Waits for something that is told, or for what it has asked for in between. */
  async until(condition: () => boolean, meanwhile: () => void = () => {}): Promise<void> {
    const deadline = performance.now() + 60_000;
    while (!condition()) {
      if (performance.now() > deadline) throw new Error("it did not come about");
      meanwhile();
      const again = Promise.withResolvers<void>();
      const timer = setTimeout(again.resolve, 20);
      await Promise.race([this.#changed.promise, again.promise]);
      clearTimeout(timer);
    }
  }
}

/** A clock that stands still until it is told to go on; what is due then happens at once. */
class FakeClock implements Clock {
  #now = 0;
  readonly #timers = new Set<{ readonly at: number; readonly callback: () => void }>();

  now(): number {
    return this.#now;
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#now + ms, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  turn(): Promise<void> {
    return systemClock.turn();
  }

  pass(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers]) {
      if (timer.at <= this.#now && this.#timers.delete(timer)) timer.callback();
    }
  }
}

function addressOf(member: Member): string {
  return member.links.book[member.id]!.chain;
}

Deno.test("members that know one of them find all, and are told when a process has ended", async () => {
  const [a, b, c] = [new Member("a"), new Member("b"), new Member("c")];
  for (const each of [a, b, c]) await each.links.listen();
  try {
    b.links.dial(addressOf(a));
    c.links.dial(addressOf(a));
    const all = [a, b, c];
    for (const each of all) {
      await each.until(() => Object.keys(each.links.book).length === 3);
      for (const other of all) {
        if (other === each) continue;
        await other.until(
          () => other.received.some(({ from, data }) => from === each.id && data === "hello"),
          () => each.links.send(other.id, "hello"),
        );
      }
    }
    b.links.close();
    await a.until(() => a.dead.includes("b/7"));
    await c.until(() => c.dead.includes("b/7"));
    assertEquals(a.dead.filter((name) => name !== "b/7"), []);
  } finally {
    for (const each of [a, b, c]) each.links.close();
  }
});

/** What a process has as its lifeline, as long as it lives. */
class Lifeline {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #held: Deno.Conn[] = [];
  readonly port = (this.#listener.addr as Deno.NetAddr).port;
  held = Promise.withResolvers<void>();

  constructor() {
    (async () => {
      for await (const conn of this.#listener) {
        this.#held.push(conn);
        this.held.resolve();
      }
    })();
  }

  /** The connections break. */
  break(): void {
    this.held = Promise.withResolvers();
    for (const conn of this.#held.splice(0)) conn.close();
  }

  /** The process ends. */
  end(): void {
    this.#listener.close();
    this.break();
  }
}

Deno.test("a process is known to have ended when its lifeline has, though its connections stand", async () => {
  const lifeline = new Lifeline();
  const [a, b] = [new Member("a"), new Member("b", { lifeline: lifeline.port })];
  for (const each of [a, b]) await each.links.listen();
  try {
    a.links.dial(addressOf(b));
    await lifeline.held.promise;
    lifeline.end();
    await a.until(() => a.dead.length > 0);
    assertEquals([a.dead, a.ends, b.ends], [["b/7"], 1, 0]);
  } finally {
    for (const each of [a, b]) each.links.close();
  }
});

Deno.test("a lifeline that breaks, or was never reached, says nothing of the process", async () => {
  const lifeline = new Lifeline();
  const closed = new Lifeline();
  closed.end();
  const a = new Member("a");
  const [b, c] = [
    new Member("b", { lifeline: lifeline.port }),
    new Member("c", { lifeline: closed.port }),
  ];
  for (const each of [a, b, c]) await each.links.listen();
  try {
    a.links.dial(addressOf(b));
    a.links.dial(addressOf(c));
    await lifeline.held.promise;
    lifeline.break();
    await lifeline.held.promise; // its machine was asked whether it is still there
    assertEquals(a.ends, 1);
    for (const each of [b, c]) {
      await each.until(() => each.received.length > 0, () => a.links.send(each.id, "x"));
    }
    assertEquals(a.dead, []);
    for (const each of [b, c]) each.links.close(); // they have ended, which is known last of all
    await a.until(() => a.dead.includes("b/7") && a.dead.includes("c/7"));
  } finally {
    for (const each of [a, b, c]) each.links.close();
    lifeline.end();
  }
});

Deno.test("one who had a lifeline and comes back without one is let go of like others", async () => {
  const lifeline = new Lifeline();
  const [a, b] = [new Member("a"), new Member("b", { lifeline: lifeline.port })];
  for (const each of [a, b]) await each.links.listen();
  const port = Number(addressOf(b).split(":")[1]);
  a.links.dial(addressOf(b));
  await lifeline.held.promise;
  b.links.close();
  await a.until(() => a.dead.includes("b/7"));
  const again = new Member("b", { port, incarnation: 8 });
  await again.links.listen();
  again.links.dial(addressOf(a));
  await again.until(() => again.received.length > 0, () => a.links.send("b", "x"));
  for (const each of [again, a]) each.links.close();
  lifeline.end();
});

Deno.test("one who is gone is forgotten when it has no part, and taken up again when it is back", async () => {
  const clock = new FakeClock();
  const a = new Member("a", { clock, hasPart: (member) => member === "c" });
  const [b, c] = [new Member("b"), new Member("c")];
  for (const each of [a, b, c]) await each.links.listen();
  const port = Number(addressOf(c).split(":")[1]);
  for (const each of [b, c]) each.links.dial(addressOf(a));
  for (const each of [b, c]) {
    await each.until(() => each.received.length > 0, () => a.links.send(each.id, "x"));
  }
  for (const each of [b, c]) each.links.close();
  try {
    await a.until(() => !("b" in a.links.book), () => clock.pass(20_000));
    assertEquals(Object.keys(a.links.book).sort(), ["a", "c"]);
    const again = new Member("c", { port });
    await again.links.listen();
    again.links.dial(addressOf(a));
    // However long a would wait before it looks again, if it were for its clock alone.
    await again.until(() => again.received.length > 0, () => a.links.send("c", "x"));
    again.links.close();
  } finally {
    a.links.close();
  }
});

Deno.test("who comes is told of those who are there, and of those with a part, but not of others who are gone", async () => {
  const a = new Member("a", { hasPart: (member) => member === "c" });
  const [b, c, d] = [new Member("b"), new Member("c"), new Member("d")];
  for (const each of [a, b, c, d]) await each.links.listen();
  for (const each of [b, c]) each.links.dial(addressOf(a));
  try {
    for (const each of [b, c]) {
      await a.until(() => each.id in a.links.book);
      await each.until(() => each.received.length > 0, () => a.links.send(each.id, "x"));
      each.links.close();
    }
    await a.until(() => a.dead.length === 2);
    await a.until(() => !("b" in a.links.present));
    d.links.dial(addressOf(a));
    await d.until(() => d.received.length > 0, () => a.links.send("d", "x"));
    await d.until(() => "c" in d.links.book);
    assertEquals(Object.keys(d.links.book).sort(), ["a", "c", "d"]);
  } finally {
    for (const each of [a, d]) each.links.close();
  }
});

Deno.test("large messages arrive whole and in order, however many wait to be sent", async () => {
  const [a, b] = [new Member("a"), new Member("b")];
  for (const each of [a, b]) await each.links.listen();
  try {
    a.links.dial(addressOf(b));
    await b.until(() => b.received.length > 0, () => a.links.send("b", "first"));
    b.received.length = 0;
    const sizes = [16_384, 65_536, 200_000, 1_000_000, 17, 300_000];
    const count = 60;
    for (let i = 0; i < count; i++) {
      a.links.send(
        "b",
        Uint8Array.from({ length: sizes[i % sizes.length]! }, (_, at) => (at * 31 + i) & 0xff),
      );
    }
    const whole = () => b.received.filter(({ data }) => typeof data !== "string");
    await b.until(() => whole().length === count);
    whole().forEach(({ data }, i) => {
      const bytes = data as Uint8Array;
      assertEquals(bytes.length, sizes[i % sizes.length]);
      for (let at = 0; at < bytes.length; at++) {
        if (bytes[at] !== ((at * 31 + i) & 0xff)) throw new Error(`message ${i} is wrong from byte ${at} on`);
      }
    });
  } finally {
    for (const each of [a, b]) each.links.close();
  }
});

Deno.test("a message that was garbled on its way ends its connection, and is told to nobody", async () => {
  const logged: string[] = [];
  const a = new Member("a", { log: (_level, message) => logged.push(message) });
  await a.links.listen();
  const seal = (text: string) => text + crc32(text).toString(16).padStart(8, "0");
  const hello = seal(JSON.stringify({ member: "b", incarnation: 1, book: {} }));
  try {
    const headers = {
      "x-rayd-token": TOKEN,
      "x-rayd-cluster": "c",
      "x-rayd-version": VERSION,
      "x-rayd-protocol": "4",
    };
    const socket = new WebSocket(`ws://${addressOf(a)}/chain`, { headers });
    const closed = new Promise((resolve) => socket.on("close", resolve));
    socket.on("message", () => {
      socket.send(seal("good"));
      socket.send(seal("good").replace("good", "goof"));
      socket.send(seal("late"));
    });
    socket.on("open", () => socket.send(hello));
    await closed;
    assertEquals(a.received, [{ from: "b", data: "good" }]);
    assertEquals(logged, ["A connection of a member ended: a message was garbled on its way"]);
  } finally {
    a.links.close();
  }
});

Deno.test("an address where nobody answers, though somebody listens, is asked again", async () => {
  const quick = { ...systemClock, after: (ms: number, then: () => void) => systemClock.after(ms / 50, then) };
  const a = new Member("a", { clock: quick });
  await a.links.listen();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const conns: Deno.Conn[] = [];
  try {
    a.links.dial(`127.0.0.1:${(listener.addr as Deno.NetAddr).port}`);
    while (conns.length < 3) conns.push(await listener.accept());
  } finally {
    a.links.close();
    listener.close();
    for (const conn of conns) conn.close();
  }
});

Deno.test("a member that is given up between its answer and the connection is dialled again", async () => {
  const clock = new FakeClock();
  const [a, b] = [new Member("a", { clock }), new Member("b")];
  for (const each of [a, b]) await each.links.listen();
  let givenUp = 0;
  const { request } = http;
  // The answer is there, and what follows it is not: here all waiting ends.
  http.request = ((...its: Parameters<typeof request>) => {
    const made = request(...its);
    let response: unknown;
    return Object.defineProperty(made, "res", {
      get: () => response,
      set: (value: unknown) => {
        response = value;
        if (givenUp++ < 3) queueMicrotask(() => clock.pass(5_000));
      },
    });
  }) as typeof request;
  try {
    a.links.dial(addressOf(b));
    await b.until(() => b.received.length > 0, () => {
      clock.pass(500);
      a.links.send("b", "x");
    });
    assertEquals(givenUp > 3, true);
  } finally {
    http.request = request;
    for (const each of [a, b]) each.links.close();
  }
});

Deno.test("an address where something else answers is asked again", async () => {
  const a = new Member("a");
  await a.links.listen();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const conns: Deno.Conn[] = [];
  try {
    a.links.dial(`127.0.0.1:${(listener.addr as Deno.NetAddr).port}`);
    while (conns.length < 3) {
      const conn = await listener.accept();
      conns.push(conn);
      await conn.read(new Uint8Array(4096));
      await conn.write(new TextEncoder().encode("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nsome of it"));
    }
  } finally {
    a.links.close();
    listener.close();
    for (const conn of conns) conn.close();
  }
});

Deno.test("a member with another token or of another cluster is refused, and so is a page", async () => {
  const a = new Member("a");
  const strangers = [new Member("b", { token: "b".repeat(64) }), new Member("c", { cluster: "other" })];
  await a.links.listen();
  try {
    for (const stranger of strangers) {
      await stranger.links.listen();
      stranger.links.dial(addressOf(a));
    }
    const page = new WebSocket(`ws://${addressOf(a)}/chain`, {
      origin: "http://example.org",
      headers: {
        "x-rayd-token": TOKEN,
        "x-rayd-cluster": "c",
        "x-rayd-version": VERSION,
        "x-rayd-protocol": "1",
      },
    });
    let said = false;
    page.on("error", () => {});
    page.on("open", () => page.send(JSON.stringify({ member: "e", incarnation: 1, book: {} })));
    page.on("message", () => said = true);
    await new Promise((resolve) => page.on("close", resolve));
    assertEquals(said, false);
    // One that is let in comes after those who are not.
    const friend = new Member("d");
    await friend.links.listen();
    friend.links.dial(addressOf(a));
    await a.until(() => "d" in a.links.book);
    friend.links.close();
    assertEquals(Object.keys(a.links.book).sort(), ["a", "d"]);
  } finally {
    for (const each of [a, ...strangers]) each.links.close();
  }
});
