import type { RedisBatch } from '../../redis/batch';
import type { Argument, RedisValue } from '../../redis/client';
import { RedisReplyError, RedisUnavailable } from '../../redis/errors';
import { rateLimit } from '../../redis/scripts/rateLimit';
import { ID_LENGTH } from '../../redis/scripts/rateLimitState';
import { argumentsOf } from './limits';
import type { Limit, LimitVerdict } from './limits';

/** One identity under one policy, for a call to Redis. */
export interface Demand {
  key: string;
  limits: readonly Limit[];
  cost: number;
}

/** `undecided`: depends on charges of other requests that may still be taken back. */
export interface RedisVerdict extends LimitVerdict {
  undecided: boolean;
}

/** Redis's reply about one demand. */
export interface Reply {
  /** The counter's own time of the charge. */
  atMs: number;
  verdicts: RedisVerdict[];
}

export interface Outcome {
  decision: 'admitted' | 'refused' | 'undecided';
  replies: Reply[];
}

const DECISIONS = ['refused', 'admitted', 'undecided'] as const;

const FIELDS = 4;

/**
 * Asks Redis about demands whose keys share a slot, all or nothing.
 *
 * @param reserveMs how long the charge may be taken back; 0: it is final
 * @throws {RedisError}
 */
export async function ask(
  batch: RedisBatch,
  demands: readonly Demand[],
  { id, reserveMs, nowMs, aheadMs = 0 }: { id: string; reserveMs: number; nowMs: number; aheadMs?: number },
): Promise<Outcome> {
  const args: Argument[] = [nowMs, id, reserveMs];
  for (const { limits, cost } of demands) args.push(cost, aheadMs, ...argumentsOf(limits));
  const reply = await batch.run(
    rateLimit,
    demands.map(({ key }) => key),
    args,
  );
  return outcomeOf(demands, reply);
}

/** Validates the reply: garbage must not become a decision. */
function outcomeOf(demands: readonly Demand[], reply: RedisValue): Outcome {
  const numbers = Array.isArray(reply) ? reply.map(Number) : [];
  const expected = demands.reduce((sum, { limits }) => sum + 1 + FIELDS * limits.length, 1);
  const decision = DECISIONS[numbers[0] ?? -1];
  if (decision === undefined || numbers.length !== expected || !numbers.every(Number.isSafeInteger)) {
    throw new RedisUnavailable('garbage');
  }
  let next = 1;
  const replies = demands.map(({ limits }): Reply => {
    const atMs = numbers[next] ?? 0;
    next += 1;
    const verdicts = limits.map((): RedisVerdict => {
      const [fits, wait] = [numbers[next], numbers[next + 3] ?? 0];
      const [remaining, resetMs] = [numbers[next + 1] ?? 0, numbers[next + 2] ?? 0];
      next += FIELDS;
      return { admitted: fits !== 0, undecided: fits === 2, remaining, resetMs, waitMs: wait < 0 ? Infinity : wait };
    });
    return { atMs, verdicts };
  });
  return { decision, replies };
}

/** A change to a counter's record. */
export interface RecordItem {
  /** By the counter's clock if positive, else relative to now (ms). */
  time: number;
  units: number;
  /** With an id the item is applied once; without one, every time. */
  id?: string;
  /** The request whose units are given back, if the counter may not have seen it. */
  of?: string | undefined;
}

/** The arguments of the script `rateLimitRecord`. */
export function recordArguments(limits: readonly Limit[], nowMs: number, items: readonly RecordItem[]): Argument[] {
  const args: Argument[] = [nowMs, ...argumentsOf(limits)];
  for (const { time, units, id = '', of = '' } of items) args.push(time, units, id, of);
  return args;
}

/** Whether the server refuses these keys together: they are in different slots of a cluster. */
export function isCrossSlot(error: unknown): boolean {
  return error instanceof RedisReplyError && error.code === 'CROSSSLOT';
}

/** Groups demands by the slot of their keys: those with the same hash tag. */
export function bySlot<T extends Demand>(demands: readonly T[]): T[][] {
  const groups = new Map<string, T[]>();
  for (const demand of demands) {
    const tag = /\{([^}]+)\}/.exec(demand.key)?.[1] ?? demand.key;
    const group = groups.get(tag);
    if (group === undefined) groups.set(tag, [demand]);
    else group.push(demand);
  }
  return [...groups.values()];
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** An id of 36 random bits. A counter uses it to recognise a request while its units count. */
export function requestId(): string {
  let id = '';
  let bits = Math.floor(Math.random() * 2 ** 36);
  for (let i = 0; i < ID_LENGTH; i += 1) {
    id += ALPHABET[bits % 64];
    bits = Math.floor(bits / 64);
  }
  return id;
}
