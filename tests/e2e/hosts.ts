/**
 * Network namespaces, joined by a bridge, as hosts of one network: each has an address of its own, and its link can be
 * taken down, parted from another host's, or made slow, while this process, on the bridge, reaches them all.
 *
 * Making them takes root and `ip`; where they cannot be made, the error says why, and who asked goes without.
 *
 * @module
 */

/** Hosts of one network, which go with the scope, and what runs in them should be gone before. */
export class Hosts implements AsyncDisposable {
  /** The namespaces. */
  readonly names: readonly string[];
  readonly #tag: string;
  readonly #network: string;

  private constructor(count: number) {
    this.#tag = `rayd${Deno.pid % 10_000}`;
    this.#network = `10.77.${Deno.pid % 250}`;
    this.names = Array.from({ length: count }, (_, i) => `${this.#tag}h${i}`);
  }

  /** Makes some. @throws {Error} If they cannot be made here, with the reason. */
  static async make(count: number): Promise<Hosts> {
    const hosts = new Hosts(count);
    const bridge = `${hosts.#tag}br`;
    try {
      await ip("link", "add", bridge, "type", "bridge");
      await ip("addr", "add", `${hosts.#network}.254/24`, "dev", bridge);
      await ip("link", "set", bridge, "up");
      for (const [i, name] of hosts.names.entries()) {
        await ip("netns", "add", name);
        await ip("link", "add", hosts.#port(i), "type", "veth", "peer", "name", "eth0", "netns", name);
        await ip("link", "set", hosts.#port(i), "master", bridge, "up");
        await ip("-n", name, "addr", "add", `${hosts.address(i)}/24`, "dev", "eth0");
        await ip("-n", name, "link", "set", "eth0", "up");
        await ip("-n", name, "link", "set", "lo", "up");
      }
      return hosts;
    } catch (error) {
      await hosts[Symbol.asyncDispose]();
      throw new Error(`network namespaces cannot be made here (${(error as Error).message.trim()})`);
    }
  }

  /** The bridge's end of a host's link. */
  #port(i: number): string {
    return `${this.#tag}v${i}`;
  }

  /** Where a host is reached. */
  address(i: number): string {
    return `${this.#network}.${i + 1}`;
  }

  /** The arguments of `ip` that run a command on a host, in a process of the same id. */
  on(i: number, command: readonly string[]): string[] {
    return ["netns", "exec", this.names[i]!, ...command];
  }

  /** Takes a host's link down, or up again: what is sent to it and from it is lost in silence. */
  async link(i: number, state: "up" | "down"): Promise<void> {
    await ip("-n", this.names[i]!, "link", "set", "eth0", state);
  }

  /** Parts two hosts from each other, not from the rest, or joins them again. */
  async part(i: number, j: number, parted: boolean): Promise<void> {
    const isolated = parted ? "on" : "off";
    for (const each of [i, j]) {
      await ip("link", "set", "dev", this.#port(each), "type", "bridge_slave", "isolated", isolated);
    }
  }

  /** Has a queueing discipline, such as `tbf rate 2mbit …`, on what a host sends and gets; none takes it away. */
  async shape(i: number, discipline: readonly string[] | undefined): Promise<void> {
    const what = discipline === undefined ? ["del", "root"] : ["add", "root", ...discipline];
    const [verb, ...rest] = what as [string, ...string[]];
    await run("tc", "-n", this.names[i]!, "qdisc", verb, "dev", "eth0", ...rest);
    await run("tc", "qdisc", verb, "dev", this.#port(i), ...rest);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.names) await ip("netns", "del", name).catch(() => {});
    await ip("link", "del", `${this.#tag}br`).catch(() => {});
  }
}

const ip = (...args: string[]) => run("ip", ...args);

async function run(command: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(command, { args }).output();
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}
