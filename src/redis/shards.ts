import { within } from '../util/within';
import { createBreaker } from './breaker';
import type { Breaker, BreakerOptions, ProbeOutcome } from './breaker';
import type { Command, RedisClient, Reply } from './client';
import { RedisUnavailable } from './errors';
import { isShardDown } from './replyError';
import { keysOf, slotOf } from './slots';
import { askTopology } from './topology';
import type { Topology } from './topology';

export interface ShardsOptions extends Pick<BreakerOptions, 'probeMs' | 'probeMaxMs' | 'probeLostMs' | 'random'> {
  client: RedisClient;
  now?: () => number;
}

/** A shard that is out, and whose probe is due. */
export interface ShardProbe {
  /** The key of a failed command in this shard. */
  key: string;
  report: (outcome: ProbeOutcome) => void;
}

/** The outcome of a call for Redis as a whole; `undefined`: it only shows that one shard is out. */
export type Score = boolean | undefined;

export interface Judgement {
  /** The trusted replies; the others are replaced by an error. */
  replies: Reply[];
  /** A promise while the topology is being read. */
  score: Score | Promise<Score>;
}

/**
 * An isolate's knowledge of the servers behind the one address that it calls.
 *
 * An error of a server's state (READONLY, LOADING, OOM …) discredits all replies of this server: it may have missed
 * revocations. On a single server that is the whole pipeline. On a cluster it is one shard. Each shard has its own breaker:
 * its first failure opens it, and the shard's users are then served without Redis. The isolate asks Redis for its topology
 * when that first matters. Until then Redis counts as a single server.
 */
export interface Shards {
  /** Whether the command belongs to a shard that is out. */
  isOut(command: Command): boolean;
  readonly outCount: number;
  judge(commands: readonly Command[], replies: Reply[]): Judgement;
  /** When a shard that is out is due for a probe, returns it to exactly one caller. That caller must report the outcome. */
  takeProbe(): ShardProbe | undefined;
  /** Calls {@link Breaker.owe} for all shards that are out, because the shard of the undelivered message is not known. */
  owe(): void;
  /** {@link Breaker.takeWatch} for any shard. */
  takeWatch(): boolean;
}

/** For a probe: also sends commands to shards that are out, and learns from their replies. */
export function ungated(shards: Shards): Shards {
  return {
    isOut: () => false,
    outCount: 0,
    judge: (commands, replies) => shards.judge(commands, replies),
    takeProbe: () => undefined,
    owe: () => undefined,
    takeWatch: () => false,
  };
}

/** The first failure opens a shard's breaker. Its users then cost one read of D1 each, and no other harm is done. */
const SHARD_BREAKER = { windowMs: 10_000, minCalls: 1, failureRatio: 0, provenAfter: 10 };
/** The most failed shards, or failed slots of a cluster with an unknown topology, to remember. */
const MAX_ENTRIES = 1_000;
/** The topology may be this old when a command fails. */
const TOPOLOGY_MS = 5_000;
/** How long the score of a call waits for the topology. After this another call asks for it. */
const LEARN_MS = 2_000;

export function createShards({ client, now = Date.now, ...breakerOptions }: ShardsOptions): Shards {
  /** Shards that have failed since this isolate began. */
  const failed = new Map<string, { breaker: Breaker; key: string }>();
  let topology: Topology | 'single' | undefined;
  let askedAtMs = -Infinity;
  /** Weak, because the promise never settles if the request that asks dies. */
  let asking: WeakRef<Promise<void>> | undefined;

  /** The shards of a command's keys. While the shards are unknown, each slot counts as one. */
  function shardsOf(command: Command): string[] {
    const known = typeof topology === 'object' ? topology : undefined;
    const slots = keysOf(command).map((key) => slotOf(key));
    return [...new Set(slots.map((slot) => known?.shardOf(slot) ?? `slot ${slot}`))];
  }

  const isOutShard = (shard: string) => {
    const entry = failed.get(shard);
    return entry !== undefined && entry.breaker.state !== 'closed';
  };

  function opened(shard: string, key: string): void {
    let entry = failed.get(shard);
    if (entry === undefined) {
      const breaker = createBreaker({ ...SHARD_BREAKER, ...breakerOptions, onAvailable: () => undefined, now });
      entry = { breaker, key };
      failed.set(shard, entry);
      const [oldest] = failed.keys();
      if (failed.size > MAX_ENTRIES && oldest !== undefined) failed.delete(oldest);
    }
    entry.breaker.record(false, entry.breaker.ticket());
  }

  /** Reads the topology again when it is old. If that fails, the known one stays. */
  function learn(): Promise<void> {
    if (now() - askedAtMs >= TOPOLOGY_MS) {
      askedAtMs = now();
      asking = new WeakRef(
        askTopology(client).then(
          (found) => {
            topology = found;
          },
          (error: unknown) => {
            if (!(error instanceof RedisUnavailable)) throw error;
          },
        ),
      );
    }
    // The request that asks may die; its promise then never settles.
    return within(asking?.deref() ?? Promise.resolve(), LEARN_MS, () => undefined);
  }

  /** Replaces the replies of discredited servers by their error. */
  function trusted(commands: readonly Command[], replies: readonly Reply[]): Reply[] {
    const discredited = new Map<string, Reply>();
    for (const [at, reply] of replies.entries()) {
      if (!(reply.error instanceof RedisUnavailable) || reply.error.reason !== 'state') continue;
      if (typeof topology !== 'object') return replies.map(() => reply);
      for (const shard of shardsOf(commands[at] ?? ['PING'])) discredited.set(shard, reply);
    }
    if (discredited.size === 0) return [...replies];
    return replies.map((reply, at) => {
      const shard = shardsOf(commands[at] ?? ['PING']).find((name) => discredited.has(name));
      return (shard === undefined ? undefined : discredited.get(shard)) ?? reply;
    });
  }

  /** Records which shards have failed and which serve again. */
  function score(commands: readonly Command[], replies: readonly Reply[]): Score {
    const kept = trusted(commands, replies);
    const usable = kept.some(isUsable);
    const isCluster = typeof topology === 'object';
    // A single server has no shards. If some replies are usable, this may be a cluster that does not reveal its topology.
    if (!isCluster && !usable) return false;
    for (const [at, { error }] of kept.entries()) {
      if (!(error instanceof RedisUnavailable) || !isShardDown(error)) continue;
      const [shard, ...others] = shardsOf(commands[at] ?? ['PING']);
      // If a command belongs to several shards, the one that refused it is unknown.
      if (shard !== undefined && others.length === 0) opened(shard, keysOf(commands[at] ?? ['PING'])[0] ?? '');
    }
    noteServing(commands, kept);
    if (usable) return true;
    const keyed = commands.some((command) => keysOf(command).length > 0);
    const allOut = typeof topology === 'object' && outCount() >= topology.shardCount;
    return keyed && !allOut ? undefined : false;
  }

  function noteServing(commands: readonly Command[], kept: readonly Reply[]): void {
    if (failed.size === 0) return;
    for (const [at, reply] of kept.entries()) {
      if (!isUsable(reply)) continue;
      for (const shard of shardsOf(commands[at] ?? ['PING'])) {
        const breaker = failed.get(shard)?.breaker;
        breaker?.record(true, breaker.ticket());
      }
    }
  }

  const outCount = () => [...failed.keys()].filter(isOutShard).length;

  return {
    isOut: (command) => failed.size > 0 && shardsOf(command).some(isOutShard),
    get outCount() {
      return outCount();
    },
    judge(commands, replies) {
      if (replies.every((reply) => !(reply.error instanceof RedisUnavailable))) {
        noteServing(commands, replies);
        return { replies, score: true };
      }
      const kept = trusted(commands, replies);
      const known = typeof topology === 'object' ? score(commands, replies) : 'asked';
      if (known !== 'asked' && now() - askedAtMs < TOPOLOGY_MS) return { replies: kept, score: known };
      return { replies: kept, score: learn().then(() => (known === 'asked' ? score(commands, replies) : known)) };
    },
    takeProbe() {
      for (const { breaker, key } of failed.values()) {
        const probe = breaker.takeProbe();
        if (probe !== undefined) return { key, report: (outcome) => breaker.probed(probe, outcome) };
      }
      return undefined;
    },
    owe() {
      for (const { breaker } of failed.values()) if (breaker.state !== 'closed') breaker.owe();
    },
    takeWatch: () => [...failed.values()].some(({ breaker }) => breaker.takeWatch()),
  };
}

const isUsable = ({ error }: Reply) => !(error instanceof RedisUnavailable);
