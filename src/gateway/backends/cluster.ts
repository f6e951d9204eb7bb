import { place } from '../address.ts';
import type { Backend, BackendOptions } from '../backend.ts';
import { keysOf, nameOf } from '../commands.ts';
import { Connection, describe, type Endpoint } from '../connection.ts';
import { BackendUnavailable, GatewayError } from '../errors.ts';
import type { Command, Outcome, Shape } from '../reply.ts';
import { SLOT_COUNT, slotOf } from '../slots.ts';
import { readTopology, type Shard } from '../topology.ts';
import { failureOf, planFor } from './fanout.ts';

/** How often the topology is read while all is well, and while a shard is out of reach. */
const REFRESH_MS = { calm: 15_000, trouble: 250 } as const;
/** Redirections that one request follows before its command's error is answered. */
const MAX_ROUNDS = 16;
/** The wait before a command is tried again that needs two keys of a slot which is just being moved (TRYAGAIN). */
const TRYAGAIN_MS = 25;
/** How long a connection is kept to a server that is no longer a master. */
const UNUSED_MS = 10_000;

/** A command on its way: where its outcome belongs, and where it goes next. */
interface Step {
  index: number;
  command: Command;
  target: Connection | undefined;
  /** Say ASKING first: the slot is being moved to the target, which does not own it yet. */
  asking: boolean;
}

/**
 * A Redis Cluster. Commands go to the masters, each by its key's slot, in one batch a master; what Redis redirects
 * (MOVED, ASK) has not run, and follows the redirection. Commands for one slot stay in their order.
 */
export class ClusterBackend implements Backend {
  readonly description: string;
  readonly #seeds: readonly Endpoint[];
  readonly #login: Omit<Endpoint, 'host' | 'port'>;
  readonly #options: BackendOptions;
  readonly #nodes = new Map<string, Connection>();
  /** When each of them was last asked for, or was a master. */
  readonly #usedAt = new Map<string, number>();
  readonly #slots: (Connection | undefined)[] = Array.from({ length: SLOT_COUNT });
  #shards: Shard[] = [];
  #refreshing: Promise<void> | undefined;
  #refreshedAt = 0;
  #timer: NodeJS.Timeout;
  #trouble = new BackendUnavailable('the cluster is not connected yet');
  #closed = false;
  readonly firstAttempt: Promise<void>;

  constructor(seeds: readonly Endpoint[], description: string, options: BackendOptions = {}) {
    this.#seeds = seeds;
    const { host: _host, port: _port, ...login } = seeds[0]!;
    this.#login = login;
    this.description = description;
    this.#options = options;
    this.firstAttempt = this.#refresh().then(async () => {
      await Promise.all([...this.#nodes.values()].map((node) => node.firstAttempt));
    });
    this.#timer = setInterval(() => {
      const interval = this.connected ? REFRESH_MS.calm : REFRESH_MS.trouble;
      if (performance.now() - this.#refreshedAt >= interval) void this.#refresh();
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

  async masters(): Promise<Endpoint[]> {
    if (this.#shards.length === 0) await this.#refresh();
    if (this.#shards.length === 0) throw this.#trouble;
    const connected = this.#shards.filter(({ master }) => this.#nodes.get(place(master))?.connected);
    return (connected.length > 0 ? connected : this.#shards).map(({ master }) => master);
  }

  async run(commands: readonly Command[], shape: Shape): Promise<Outcome[]> {
    const outcomes = Array.from<Outcome>({ length: commands.length });
    let steps: Step[] = [];
    for (let index = 0; index < commands.length; index++) {
      const command = commands[index]!;
      const name = nameOf(command);
      const plan = planFor(name, command, this.#shards.length);
      if (!plan) {
        const key = keysOf(name, command)[0];
        const target = key === undefined ? this.#masterWithoutKey(name) : this.#slots[slotOf(key)];
        steps.push({ index, command, target, asking: false });
        continue;
      }
      // What spans shards is a barrier: it sees what came before it, and what follows sees it.
      await this.#settle(steps, outcomes, shape);
      steps = [];
      const parts = Array.from<Outcome>({ length: plan.parts.length });
      const partSteps = plan.parts.map(({ command, to }, index) => ({
        index,
        command,
        target: 'slot' in to ? this.#slots[to.slot] : this.#masterOf(to.shard),
        asking: false,
      }));
      await this.#settle(partSteps, parts, shape);
      outcomes[index] = failureOf(parts) ?? (this.#shards.length === 0 ? this.#trouble : plan.merge(parts));
    }
    await this.#settle(steps, outcomes, shape);
    return outcomes;
  }

  async transaction(commands: readonly Command[], shape: Shape): Promise<Outcome[] | Error> {
    let slot: number | undefined;
    for (const command of commands) {
      const name = nameOf(command);
      for (const key of keysOf(name, command)) {
        slot ??= slotOf(key);
        if (slotOf(key) !== slot) {
          return new GatewayError(400, "CROSSSLOT Keys in request don't hash to the same slot");
        }
      }
      // Keys of one slot never need a plan, so this one spans all shards: EXEC on one of them would be a wrong answer.
      if (planFor(name, command, this.#shards.length)) {
        return new GatewayError(400, `ERR ${name} concerns all shards of the cluster and cannot run in a transaction`);
      }
    }
    let target = slot === undefined ? this.#anyMaster() : this.#slots[slot];
    let asking = false;
    for (let round = 1; target; round++) {
      const result: Outcome[] | Error = await target.transaction(commands, shape, asking);
      // Redis refuses a transaction with a redirection in it as a whole, so none of it has run.
      const redirection =
        result instanceof Error && round < MAX_ROUNDS ? await this.#redirect(result, target) : undefined;
      if (!redirection) return result;
      ({ target, asking } = redirection);
    }
    return this.#trouble;
  }

  async close(graceMs?: number): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#trouble = new BackendUnavailable('the gateway is shutting down');
    await this.#refreshing;
    await Promise.all([...this.#nodes.values()].map((node) => node.close(graceMs)));
  }

  /** Runs steps, one batch a target, and follows redirections until each has its outcome. */
  async #settle(steps: Step[], outcomes: Outcome[], shape: Shape): Promise<void> {
    for (let round = 1; steps.length > 0; round++) {
      const batches = Map.groupBy(steps, (step) => step.target);
      const redirected = await Promise.all(
        [...batches].map(([target, batch]) => this.#runBatch(target, batch, outcomes, shape, round)),
      );
      steps = redirected.flat().sort((a, b) => a.index - b.index);
    }
  }

  /** Runs one batch on one node, and answers the steps that have to go on elsewhere. */
  async #runBatch(
    target: Connection | undefined,
    batch: Step[],
    outcomes: Outcome[],
    shape: Shape,
    round: number,
  ): Promise<Step[]> {
    if (!target) {
      for (const { index } of batch) outcomes[index] = this.#trouble;
      return [];
    }
    const asking = batch.some((step) => step.asking);
    const commands = asking ? batch.flatMap(({ command }) => [ASKING, command]) : batch.map(({ command }) => command);
    const replies = await target.run(commands, shape);
    const again: Step[] = [];
    for (let i = 0; i < batch.length; i++) {
      const step = batch[i]!;
      const outcome = replies[asking ? i * 2 + 1 : i]!;
      const redirection =
        outcome instanceof Error && round < MAX_ROUNDS ? await this.#redirect(outcome, target) : undefined;
      if (redirection) again.push({ ...step, ...redirection });
      else outcomes[step.index] = outcome;
    }
    return again;
  }

  /** Where to go on with a command that was answered with this error; `undefined`: nowhere, it stands. */
  async #redirect(error: Error, from: Connection): Promise<{ target: Connection; asking: boolean } | undefined> {
    if (error instanceof BackendUnavailable) {
      // The node is away: learn soon who took over. The command itself is not tried again, it may have run.
      if (performance.now() - this.#refreshedAt >= REFRESH_MS.trouble) void this.#refresh();
      return undefined;
    }
    const [kind, slot, address] = error.message.split(' ');
    if (kind === 'TRYAGAIN') {
      await new Promise((resolve) => setTimeout(resolve, TRYAGAIN_MS));
      return { target: from, asking: false };
    }
    if ((kind !== 'MOVED' && kind !== 'ASK') || !address) return undefined;
    const separator = address.lastIndexOf(':');
    const host = address.slice(0, separator).replace(/^\[(.*)\]$/, '$1') || from.endpoint!.host;
    const target = this.#nodeAt({ ...this.#login, host, port: Number(address.slice(separator + 1)) });
    if (kind === 'MOVED') {
      this.#slots[Number(slot)] = target;
      void this.#refresh();
    }
    await target.firstAttempt;
    return { target, asking: kind === 'ASK' };
  }

  #nodeAt(endpoint: Endpoint): Connection {
    const name = place(endpoint);
    this.#usedAt.set(name, performance.now());
    let node = this.#nodes.get(name);
    if (!node) {
      const { replyTimeoutMs, onState } = this.#options;
      node = new Connection({
        resolve: () => Promise.resolve(endpoint),
        ...(replyTimeoutMs !== undefined && { replyTimeoutMs }),
        onState: (connected, at, cause) => {
          onState?.(connected, place(at), cause);
          if (!connected && !this.#closed) void this.#refresh();
        },
      });
      this.#nodes.set(name, node);
    }
    return node;
  }

  #masterOf(shard: number): Connection | undefined {
    const master = this.#shards[shard]?.master;
    return master && this.#nodes.get(place(master));
  }

  /** Scripts without keys always go to the same master, or their SHA would be known on one and not on the next. */
  #masterWithoutKey(name: string): Connection | undefined {
    return name.startsWith('EVAL') || name.startsWith('FCALL') ? this.#masterOf(0) : this.#anyMaster();
  }

  #anyMaster(): Connection | undefined {
    const start = Math.floor(Math.random() * this.#shards.length);
    for (let i = 0; i < this.#shards.length; i++) {
      const node = this.#masterOf((start + i) % this.#shards.length);
      if (node?.connected) return node;
    }
    return this.#masterOf(start);
  }

  /** Reads the topology and takes it over. One at a time; never rejects. */
  #refresh(): Promise<void> {
    this.#refreshing ??= this.#takeOver().finally(() => {
      this.#refreshing = undefined;
      this.#refreshedAt = performance.now();
    });
    return this.#refreshing;
  }

  async #takeOver(): Promise<void> {
    const connected = this.#shards.filter(({ master }) => this.#nodes.get(place(master))?.connected);
    const known = [
      ...connected.map(({ master }) => master),
      ...this.#shards.flatMap(({ master, replicas }) => [...replicas, master]),
      ...this.#seeds,
    ];
    const candidates = [...new Map(known.toReversed().map((node) => [place(node), node])).values()].toReversed();
    let shards: Shard[];
    try {
      shards = await readTopology(candidates, this.#login);
    } catch (error) {
      this.#trouble = new BackendUnavailable(`Redis is not available: ${describe(error)}`, { cause: error });
      return;
    }
    if (this.#closed) return;
    this.#shards = shards;
    this.#slots.fill(undefined);
    for (const { master, ranges } of shards) {
      const node = this.#nodeAt(master);
      for (const [first, last] of ranges) this.#slots.fill(node, first, last + 1);
    }
    this.#trouble = new BackendUnavailable('Redis is not available: no node of the cluster has that slot');
    this.#closeUnused();
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
}

const ASKING: Command = ['ASKING'];
