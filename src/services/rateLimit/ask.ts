import type { RedisBatch } from '../../redis/batch';
import type { Argument, RedisValue } from '../../redis/client';
import { RedisReplyError, RedisUnavailable } from '../../redis/errors';
import { rateLimit } from '../../redis/scripts/rateLimit';
import { ID_LENGTH } from '../../redis/scripts/rateLimitState';
import { argumentsOf } from './limits';
import type { Limit, LimitVerdict } from './limits';

/** One identity under one policy, as Redis is asked about it. */
export interface Demand {
  key: string;
  limits: readonly Limit[];
  cost: number;
}

/** `undecided`: it depends on charges of other requests that may still be taken back. */
export interface RedisVerdict extends LimitVerdict {
  undecided: boolean;
}

/** What Redis says of one demand. */
export interface Reply {
  /** The counter's own time, at which it was charged. */
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
 * Asks about demands whose keys share a slot, all or nothing.
 *
 * @param reserveMs how long the charge may be taken back; 0 when it is final
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

/** The reply is checked: garbage must not become a decision. */
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

/** A change of what a counter has recorded. */
export interface RecordItem {
  /** The counter's when positive, else in ms from now. */
  time: number;
  units: number;
  /** Done once, under this id; without one, each time. */
  id?: string;
  /** The request whose units are given back, where the counter may not have seen it. */
  of?: string | undefined;
}

/** The arguments of the script `rateLimitRecord`. */
export function recordArguments(limits: readonly Limit[], nowMs: number, items: readonly RecordItem[]): Argument[] {
  const args: Argument[] = [nowMs, ...argumentsOf(limits)];
  for (const { time, units, id = '', of = '' } of items) args.push(time, units, id, of);
  return args;
}

/** Whether the server keeps these keys apart: they are on different slots of a cluster. */
export function isCrossSlot(error: unknown): boolean {
  return error instanceof RedisReplyError && error.code === 'CROSSSLOT';
}

/** Demands by the slot of their key: those of one hash tag together. */
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

/** An id of 36 random bits, by which a counter knows a request for as long as it counts. */
export function requestId(): string {
  let id = '';
  let bits = Math.floor(Math.random() * 2 ** 36);
  for (let i = 0; i < ID_LENGTH; i += 1) {
    id += ALPHABET[bits % 64];
    bits = Math.floor(bits / 64);
  }
  return id;
}
