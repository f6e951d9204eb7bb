import { place } from '../address.ts';
import type { BackendOptions } from '../backend.ts';
import { describe, type Endpoint } from '../client.ts';
import { Connection } from '../connection.ts';
import { BackendUnavailable } from '../errors.ts';
import { DEFAULT_SCRIPT_TIMEOUT_MS, ScriptWatch } from '../scriptWatch.ts';
import { SLOT_COUNT } from '../slots.ts';
import { readMembers, readTopology, type Shard } from '../topology.ts';

/** How often the topology is read while all shards are reachable, and while one is not. */
const REFRESH_MS = { calm: 15_000, trouble: 250 } as const;
/** How long a connection is kept to a server that is no longer a master. */
const UNUSED_MS = 10_000;

/**
 * The masters of a cluster: which has which slot, and a connection to each. Follows the cluster as it changes: reads
 * the topology now and then, more often while a master is out of reach, and when a redirection shows it to be old.
 */
export class ClusterNodes {
  /** Resolves once the first attempt to reach every master has succeeded or failed. */
  readonly firstAttempt: Promise<void>;
  readonly #seeds: readonly Endpoint[];
  readonly #login: Omit<Endpoint, 'host' | 'port'>;
  readonly #options: BackendOptions;
  readonly #nodes = new Map<string, Connection>();
  /** When each of them was last asked for, or was a master. */
  readonly #usedAt = new Map<string, number>();
  readonly #slots: (Connection | undefined)[] = Array.from({ length: SLOT_COUNT });
  readonly #timer: NodeJS.Timeout;
  #shards: Shard[] = [];
  /** Nodes that the topology does not have, as `CLUSTER NODES` named them: new ones, without slots. */
  #extra = new Set<string>();
  #refreshing: Promise<void> | undefined;
  #refreshedAt = 0;
  #trouble = new BackendUnavailable('the cluster is not connected yet');
  #closed = false;

  constructor(seeds: readonly Endpoint[], options: BackendOptions) {
    this.#seeds = seeds;
    const { host: _host, port: _port, ...login } = seeds[0]!;
    this.#login = login;
    this.#options = options;
    this.firstAttempt = this.refresh().then(async () => {
      await Promise.all([...this.#nodes.values()].map((node) => node.firstAttempt));
    });
    this.#timer = setInterval(() => {
      if (this.#isOlderThan(this.connected ? REFRESH_MS.calm : REFRESH_MS.trouble)) void this.refresh();
    }, REFRESH_MS.trouble);
    this.#timer.unref();
  }

  /** Whether every slot has a master that is connected. */
  get connected(): boolean {
    let slots = 0;
    for (const { master, ranges } of this.#shards) {
      if (!this.#nodes.get(place(master))?.connected) return false;
      for (const [first, last] of ranges) slots += last - first + 1;
    }
    return slots === SLOT_COUNT;
  }

  /** Shards that have slots; 0: the topology is not known yet. */
  get shardCount(): number {
    return this.#shards.length;
  }

  /** Why a slot has no master here. */
  get trouble(): BackendUnavailable {
    return this.#trouble;
  }

  /** The addresses of the masters, of those that are connected if any is. */
  async addresses(): Promise<Endpoint[]> {
    if (this.#shards.length === 0) await this.refresh();
    if (this.#shards.length === 0) throw this.#trouble;
    const connected = this.#shards.filter(({ master }) => this.#nodes.get(place(master))?.connected);
    return (connected.length > 0 ? connected : this.#shards).map(({ master }) => master);
  }

  /** The addresses of all masters, those out of reach included. */
  async allMasters(): Promise<Endpoint[]> {
    await this.addresses();
    return this.#shards.map(({ master }) => master);
  }

  ofSlot(slot: number): Connection | undefined {
    return this.#slots[slot];
  }

  /** Shards are numbered by their lowest slot, so that a number outlives a failover. */
  ofShard(shard: number): Connection | undefined {
    const master = this.#shards[shard]?.master;
    return master && this.#nodes.get(place(master));
  }

  /** Some master that is connected, if any is. */
  any(): Connection | undefined {
    const start = Math.floor(Math.random() * this.#shards.length);
    for (let i = 0; i < this.#shards.length; i++) {
      const node = this.ofShard((start + i) % this.#shards.length);
      if (node?.connected) return node;
    }
    return this.ofShard(start);
  }

  /**
   * The node that a redirection names (`host:port`, or `:port` for the host that redirected), when it is one of this
   * cluster's; `undefined`: no node of the cluster has that address, even after asking anew. Nothing is ever sent, the
   * password least of all, to an address that only an error names.
   */
  async member(address: string, by: Connection): Promise<Connection | undefined> {
    const separator = address.lastIndexOf(':');
    const host = address.slice(0, separator).replace(/^\[(.*)\]$/, '$1') || by.endpoint!.host;
    const endpoint = { ...this.#login, host, port: Number(address.slice(separator + 1)) };
    const name = place(endpoint);
    const named = () => this.#shards.some((shard) => [shard.master, ...shard.replicas].some((n) => place(n) === name));
    if (named() || this.#extra.has(name)) return this.#at(endpoint);
    await this.refresh();
    if (!named() && !this.#extra.has(name)) await this.#readExtra();
    return named() || this.#extra.has(name) ? this.#at(endpoint) : undefined;
  }

  /** The error with the name of the shard whose keys it makes unavailable: its slots, and its master's address. */
  shardError(error: BackendUnavailable, node: Connection | undefined, slot: number | undefined): BackendUnavailable {
    const at = node?.endpoint && place(node.endpoint);
    const shard =
      this.#shards.find(({ master }) => at !== undefined && place(master) === at) ??
      this.#shards.find(({ ranges }) => ranges.some(([first, last]) => slot! >= first && slot! <= last));
    if (!shard) return slot === undefined ? error : error.with(`slot ${slot}`);
    const ranges = shard.ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`));
    const more = ranges.length > 3 ? ` and ${ranges.length - 3} more ranges` : '';
    return error.with(`shard of slots ${ranges.slice(0, 3).join(',')}${more} at ${place(shard.master)}`);
  }

  /** Takes a slot's new master from a MOVED, and reads what else has changed. */
  moved(slot: number, to: Connection): void {
    this.#slots[slot] = to;
    void this.refresh();
  }

  /** Call it when a master fails: soon reads the topology, to find its successor. */
  suspect(): void {
    if (this.#isOlderThan(REFRESH_MS.trouble)) void this.refresh();
  }

  /** Reads the topology and applies it. One read at a time; never rejects. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#takeOver().finally(() => {
      this.#refreshing = undefined;
      this.#refreshedAt = performance.now();
    });
    return this.#refreshing;
  }

  async close(graceMs?: number): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#trouble = new BackendUnavailable('the gateway is shutting down');
    await Promise.all([...this.#nodes.values()].map((node) => node.close(graceMs)));
  }

  async #readExtra(): Promise<void> {
    try {
      this.#extra = await readMembers(this.#known());
    } catch (error) {
      if (!(error instanceof BackendUnavailable)) throw error;
      this.#trouble = error;
    }
  }

  /** Every node that is known, those that are connected first, the seeds last. */
  #known(): Endpoint[] {
    const connected = this.#shards.filter(({ master }) => this.#nodes.get(place(master))?.connected);
    const known = [
      ...connected.map(({ master }) => master),
      ...this.#shards.flatMap(({ master, replicas }) => [...replicas, master]),
      ...this.#seeds,
    ];
    return [...new Map(known.toReversed().map((node) => [place(node), node])).values()].toReversed();
  }

  async #takeOver(): Promise<void> {
    let shards: Shard[];
    try {
      shards = await readTopology(this.#known(), this.#login);
    } catch (error) {
      this.#trouble = new BackendUnavailable(`Redis is not available: ${describe(error)}`, { cause: error });
      return;
    }
    if (this.#closed) return;
    this.#shards = shards;
    this.#slots.fill(undefined);
    for (const { master, ranges } of shards) {
      const node = this.#at(master);
      for (const [first, last] of ranges) this.#slots.fill(node, first, last + 1);
    }
    this.#trouble = new BackendUnavailable('Redis is not available: no node of the cluster has that slot');
    this.#closeUnused();
  }

  #at(endpoint: Endpoint): Connection {
    const name = place(endpoint);
    this.#usedAt.set(name, performance.now());
    let node = this.#nodes.get(name);
    if (!node) {
      const { replyTimeoutMs, scriptTimeoutMs = DEFAULT_SCRIPT_TIMEOUT_MS, onState, onEvent } = this.#options;
      const { maxPendingPerShard: maxPending } = this.#options;
      node = new Connection({
        resolve: () => Promise.resolve(endpoint),
        ...(replyTimeoutMs !== undefined && { replyTimeoutMs }),
        ...(maxPending !== undefined && { maxPending }),
        scripts: new ScriptWatch(scriptTimeoutMs, (event) => onEvent?.(event)),
        onState: (connected, at, cause) => {
          onState?.(connected, place(at), cause);
          if (!connected && !this.#closed) void this.refresh();
        },
      });
      this.#nodes.set(name, node);
      if (this.#closed) void node.close(); // a redirection that came in while closing
    }
    return node;
  }

  /** Closes connections to servers that have not been masters for a while: a node may know less than a MOVED said. */
  #closeUnused(): void {
    const now = performance.now();
    for (const { master } of this.#shards) this.#usedAt.set(place(master), now);
    for (const [name, node] of this.#nodes) {
      if (node.pending > 0 || now - this.#usedAt.get(name)! < UNUSED_MS) continue;
      this.#nodes.delete(name);
      this.#usedAt.delete(name);
      void node.close();
    }
  }

  #isOlderThan(ms: number): boolean {
    return performance.now() - this.#refreshedAt >= ms;
  }
}
