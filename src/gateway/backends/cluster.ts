import type { Backend, BackendOptions } from '../backend.ts';
import type { Endpoint } from '../client.ts';
import { keysOf, nameOf } from '../commands.ts';
import type { Connection } from '../connection.ts';
import { BackendUnavailable, GatewayError } from '../errors.ts';
import type { Command, Outcome, Shape } from '../reply.ts';
import { slotOf } from '../slots.ts';
import { ClusterNodes } from './clusterNodes.ts';
import { failureOf, planFor } from './fanout.ts';

/** Redirections that one command follows before its error is answered. */
const MAX_ROUNDS = 16;
/** The wait before a command is tried again that needs two keys of a slot which is just being moved (TRYAGAIN). */
const TRYAGAIN_MS = 25;
const ASKING: Command = ['ASKING'];

/** Where a command goes next. */
interface Destination {
  target: Connection | undefined;
  /** Say ASKING first: the slot is being moved to the target, which does not own it yet. */
  asking: boolean;
}

/** A command on its way: where its outcome belongs, and where it goes next. */
interface Step extends Destination {
  index: number;
  command: Command;
}

/**
 * A Redis Cluster. Commands go to the masters, each by its key's slot, in one batch a master. What Redis redirects
 * (MOVED, ASK) or puts off (TRYAGAIN) it has not run, and is sent on; nothing else is ever sent twice.
 *
 * A pipeline's commands for one key run in their order. Only a command of several keys whose slot is being moved at
 * that moment, with some of its keys on either side, may run after the commands that follow it.
 */
export class ClusterBackend implements Backend {
  readonly description: string;
  readonly #nodes: ClusterNodes;

  /** @param seeds nodes to learn the topology from; the first one's login is used for all */
  constructor(seeds: readonly Endpoint[], description: string, options: BackendOptions = {}) {
    this.description = description;
    this.#nodes = new ClusterNodes(seeds, options);
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

  close(graceMs?: number): Promise<void> {
    return this.#nodes.close(graceMs);
  }

  async run(commands: readonly Command[], shape: Shape): Promise<Outcome[]> {
    const nodes = this.#nodes;
    const outcomes = Array.from<Outcome>({ length: commands.length });
    let steps: Step[] = [];
    for (let index = 0; index < commands.length; index++) {
      const command = commands[index]!;
      const name = nameOf(command);
      const plan = planFor(name, command, nodes.shardCount);
      if (!plan) {
        steps.push({ index, command, target: this.#masterFor(name, command), asking: false });
        continue;
      }
      // What spans shards is a barrier: it sees what came before it, and what follows sees it.
      await this.#settle(steps, outcomes, shape);
      steps = [];
      const parts = Array.from<Outcome>({ length: plan.parts.length });
      const partSteps = plan.parts.map(({ command: part, to }, at) => ({
        index: at,
        command: part,
        target: 'slot' in to ? nodes.ofSlot(to.slot) : nodes.ofShard(to.shard),
        asking: false,
      }));
      await this.#settle(partSteps, parts, shape);
      outcomes[index] = failureOf(parts) ?? (nodes.shardCount === 0 ? nodes.trouble : plan.merge(parts));
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
      if (planFor(name, command, this.#nodes.shardCount)) {
        return new GatewayError(400, `ERR ${name} concerns all shards of the cluster and cannot run in a transaction`);
      }
    }
    let target = slot === undefined ? this.#masterFor(nameOf(commands[0]!), commands[0]!) : this.#nodes.ofSlot(slot);
    let asking = false;
    for (let round = 1; target; round++) {
      const result: Outcome[] | Error = await target.transaction(commands, shape, asking);
      // Redis refuses a transaction with a redirection in it as a whole, so none of it has run.
      const next = result instanceof Error && round < MAX_ROUNDS ? this.#next(result, target) : undefined;
      if (!next) return result;
      await next.ready;
      ({ target, asking } = next);
    }
    return this.#nodes.trouble;
  }

  #masterFor(name: string, command: Command): Connection | undefined {
    const key = keysOf(name, command)[0];
    if (key !== undefined) return this.#nodes.ofSlot(slotOf(key));
    // Scripts without keys always go to the same master, or their SHA would be known on one and not on the next.
    return name.startsWith('EVAL') || name.startsWith('FCALL') ? this.#nodes.ofShard(0) : this.#nodes.any();
  }

  /** Runs steps, one batch a target, and follows redirections until each has its outcome. */
  async #settle(steps: Step[], outcomes: Outcome[], shape: Shape): Promise<void> {
    for (let round = 1; steps.length > 0; round++) {
      const batches = Map.groupBy(steps, (step) => step.target);
      const onward = await Promise.all(
        [...batches].map(([target, batch]) => this.#runBatch(target, batch, outcomes, shape, round < MAX_ROUNDS)),
      );
      steps = onward.flat().sort((a, b) => a.index - b.index);
    }
  }

  /** Runs one batch on one node, and answers the steps that have to go on elsewhere, once they can. */
  async #runBatch(
    target: Connection | undefined,
    batch: Step[],
    outcomes: Outcome[],
    shape: Shape,
    follow: boolean,
  ): Promise<Step[]> {
    if (!target) {
      for (const { index } of batch) outcomes[index] = this.#nodes.trouble;
      return [];
    }
    const asking = batch.some((step) => step.asking);
    const commands = asking ? batch.flatMap(({ command }) => [ASKING, command]) : batch.map(({ command }) => command);
    const replies = await target.run(commands, shape);
    const onward: Step[] = [];
    const ready: Promise<void>[] = [];
    for (let i = 0; i < batch.length; i++) {
      const { index, command } = batch[i]!;
      const outcome = replies[asking ? i * 2 + 1 : i]!;
      const next = outcome instanceof Error && follow ? this.#next(outcome, target) : undefined;
      if (next) {
        onward.push({ index, command, target: next.target, asking: next.asking });
        ready.push(next.ready);
      } else {
        outcomes[index] = outcome;
      }
    }
    if (ready.length > 0) await Promise.all(ready);
    return onward;
  }

  /** Where to go on with a command that was answered with this error, and when; `undefined`: nowhere, it stands. */
  #next(error: Error, from: Connection): (Destination & { ready: Promise<void> }) | undefined {
    if (error instanceof BackendUnavailable) {
      this.#nodes.suspect();
      return undefined;
    }
    const [kind, slot, address] = error.message.split(' ');
    if (kind === 'TRYAGAIN') {
      const ready = new Promise<void>((resolve) => setTimeout(resolve, TRYAGAIN_MS));
      return { target: from, asking: false, ready };
    }
    if ((kind !== 'MOVED' && kind !== 'ASK') || !address) return undefined;
    const target = this.#nodes.named(address, from);
    if (kind === 'MOVED') this.#nodes.moved(Number(slot), target);
    return { target, asking: kind === 'ASK', ready: target.firstAttempt };
  }
}
