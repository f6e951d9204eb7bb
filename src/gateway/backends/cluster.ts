import type { Backend, BackendOptions, KillOutcome } from '../backend.ts';
import { CommandCatalog } from '../catalog.ts';
import type { Endpoint } from '../client.ts';
import { isScript, nameOf } from '../commands.ts';
import type { Connection } from '../connection.ts';
import { BackendUnavailable, GatewayError } from '../errors.ts';
import type { Arg, Command, Outcome, Shape } from '../reply.ts';
import { JSON_SHAPE } from '../reply.ts';
import { slotOf } from '../slots.ts';
import { ClusterNodes } from './clusterNodes.ts';
import { failureOf, planFor } from './fanout.ts';
import { killEverywhere } from './kill.ts';
import { type Destination, Redirects } from './redirects.ts';

/** Redirections that one command follows before the client gets its error. */
const MAX_ROUNDS = 16;
const ASKING: Command = ['ASKING'];

/** A command in flight: the place of its outcome, and its next target. */
interface Step extends Destination {
  index: number;
  name: string;
  command: Command;
  /** The slot of its first key. */
  slot: number | undefined;
}

/**
 * A Redis Cluster. Each command goes to the master of its key's slot, in one batch per master. Redis has not run a command
 * that it redirects (MOVED, ASK) or postpones (TRYAGAIN), so it is sent again; no other command is ever sent twice.
 *
 * A pipeline's commands for one key run in their order. Only a command of several keys whose slot is being moved at
 * that moment, with some of its keys on either side, may run after the commands that follow it.
 */
export class ClusterBackend implements Backend {
  readonly description: string;
  readonly catalog: CommandCatalog;
  readonly #nodes: ClusterNodes;
  readonly #redirects: Redirects;

  /** @param seeds nodes to learn the topology from; the first one's login is used for all */
  constructor(
    seeds: readonly Endpoint[],
    description: string,
    options: BackendOptions = {},
    table?: ConstructorParameters<typeof CommandCatalog>[1],
  ) {
    this.description = description;
    this.#nodes = new ClusterNodes(seeds, options);
    this.catalog = new CommandCatalog((command) => this.#askAny(command), table);
    this.#redirects = new Redirects(this.#nodes, this.catalog);
  }

  get connected(): boolean {
    return this.#nodes.connected;
  }

  get firstAttempt(): Promise<void> {
    return this.#nodes.firstAttempt;
  }

  masters(): Promise<Endpoint[]> {
    return this.#nodes.addresses();
  }

  async kill(kind: 'SCRIPT' | 'FUNCTION'): Promise<KillOutcome> {
    return killEverywhere(await this.#nodes.allMasters(), kind);
  }

  close(graceMs?: number): Promise<void> {
    return this.#nodes.close(graceMs);
  }

  async run(commands: readonly Command[], shape: Shape): Promise<Outcome[]> {
    const nodes = this.#nodes;
    const outcomes: Outcome[] = [];
    let steps: Step[] = [];
    for (let index = 0; index < commands.length; index++) {
      const command = commands[index]!;
      const name = nameOf(command);
      const plan = planFor(name, command, nodes.shardCount);
      if (!plan) {
        const keys = this.catalog.has(name)
          ? this.catalog.keysOf(name, command)
          : await this.catalog.findKeys(name, command);
        const place = name === 'PUBLISH' ? this.#placeForChannel(command[1]) : this.#placeFor(name, keys[0]);
        steps.push({ index, name, command, ...place, asking: false });
        continue;
      }
      // A command that spans shards is a barrier: it sees the effects of earlier commands, and later commands see its own.
      await this.#settle(steps, outcomes, shape);
      steps = [];
      const parts = Array.from<Outcome>({ length: plan.parts.length });
      const partSteps = plan.parts.map(({ command: part, to }, at): Step => {
        const slot = 'slot' in to ? to.slot : undefined;
        const target = 'slot' in to ? nodes.ofSlot(to.slot) : nodes.ofShard(to.shard);
        return { index: at, name, command: part, slot, target, asking: false };
      });
      await this.#settle(partSteps, parts, shape);
      outcomes[index] = failureOf(parts) ?? (nodes.shardCount === 0 ? nodes.trouble : plan.merge(parts));
    }
    await this.#settle(steps, outcomes, shape);
    return outcomes;
  }

  async transaction(commands: readonly Command[], shape: Shape): Promise<Outcome[] | Error> {
    const keys: Arg[] = [];
    for (const command of commands) {
      const name = nameOf(command);
      keys.push(...(await this.catalog.findKeys(name, command)));
      if (keys.some((key) => slotOf(key) !== slotOf(keys[0]!))) {
        return new GatewayError(400, "CROSSSLOT Keys in request don't hash to the same slot");
      }
      // Keys of one slot never need a plan, so this one spans all shards: EXEC on one of them would be a wrong reply.
      if (planFor(name, command, this.#nodes.shardCount)) {
        return new GatewayError(400, `ERR ${name} concerns all shards of the cluster and cannot run in a transaction`);
      }
    }
    const { slot, target: first } = this.#placeFor(nameOf(commands[0]!), keys[0]);
    let target = first;
    let asking = false;
    for (let round = 1; target; round++) {
      const from: Connection = target;
      const result: Outcome[] | Error = await from.transaction(commands, shape, asking);
      if (!(result instanceof Error)) return result;
      if (result instanceof BackendUnavailable) return this.#unavailable(result, from, slot);
      if (!Redirects.isOne(result) || round >= MAX_ROUNDS) return result;
      // Redis refuses a transaction with a redirection in it as a whole, so none of it has run.
      const next = await this.#redirects.next(result, { from, asking, keys: () => keys });
      if (!next) return result;
      ({ target, asking } = next);
    }
    return this.#unavailable(this.#nodes.trouble, undefined, slot);
  }

  #placeFor(name: string, key: Arg | undefined): { slot: number | undefined; target: Connection | undefined } {
    if (key !== undefined) {
      const slot = slotOf(key);
      return { slot, target: this.#nodes.ofSlot(slot) };
    }
    // Scripts without keys always go to the same master, or their SHA would be known on one and not on the next.
    return { slot: undefined, target: isScript(name) ? this.#nodes.ofShard(0) : this.#nodes.any() };
  }

  /** One node for a channel, or its messages could overtake each other on the cluster's bus; any node can do it. */
  #placeForChannel(channel: Arg | undefined): { slot: undefined; target: Connection | undefined } {
    const usual = channel === undefined ? undefined : this.#nodes.ofSlot(slotOf(channel));
    return { slot: undefined, target: usual?.connected ? usual : this.#nodes.any() };
  }

  async #askAny(command: Command): Promise<Outcome> {
    const [outcome] = (await this.#nodes.any()?.run([command], JSON_SHAPE)) ?? [];
    return outcome ?? this.#nodes.trouble;
  }

  /** Runs steps, one batch a target, and follows redirections until each has its outcome. */
  async #settle(steps: Step[], outcomes: Outcome[], shape: Shape): Promise<void> {
    for (let round = 1; steps.length > 0; round++) {
      const batches = Map.groupBy(steps, (step) => step.target);
      const onward = await Promise.all(
        [...batches].map(([target, batch]) => this.#runBatch(target, batch, outcomes, shape, round < MAX_ROUNDS)),
      );
      steps = onward.flat();
      if (onward.length > 1) steps.sort((a, b) => a.index - b.index);
    }
  }

  /** Runs one batch on one node, and returns the steps that must continue on another node, once they can. */
  async #runBatch(
    target: Connection | undefined,
    batch: Step[],
    outcomes: Outcome[],
    shape: Shape,
    follow: boolean,
  ): Promise<Step[]> {
    if (!target) {
      for (const { index, slot } of batch) {
        outcomes[index] = this.#unavailable(this.#nodes.trouble, undefined, slot);
      }
      return [];
    }
    const asking = batch.some((step) => step.asking);
    const commands = asking ? batch.flatMap(({ command }) => [ASKING, command]) : batch.map(({ command }) => command);
    const replies = await target.run(commands, shape);
    const onward: Promise<Step | undefined>[] = [];
    for (let i = 0; i < batch.length; i++) {
      const step = batch[i]!;
      const outcome = replies[asking ? i * 2 + 1 : i]!;
      outcomes[step.index] = outcome;
      if (!(outcome instanceof Error)) continue;
      if (outcome instanceof BackendUnavailable) {
        outcomes[step.index] = this.#unavailable(outcome, target, step.slot);
      } else if (follow && Redirects.isOne(outcome)) {
        onward.push(this.#onward(step, outcome, target, asking));
      }
    }
    if (onward.length === 0) return [];
    return (await Promise.all(onward)).filter((step) => step !== undefined);
  }

  async #onward(step: Step, error: Error, from: Connection, asking: boolean): Promise<Step | undefined> {
    const keys = () => this.catalog.findKeys(step.name, step.command);
    const next = await this.#redirects.next(error, { from, asking, keys }, step.name);
    return next && { ...step, ...next };
  }

  /** Adds the shard to the error, so that a client knows which keys are unavailable, and looks for the new master. */
  #unavailable(error: BackendUnavailable, node: Connection | undefined, slot: number | undefined): BackendUnavailable {
    this.#nodes.suspect();
    return this.#nodes.shardError(error, node, slot);
  }
}
