import type { RedisBatch } from '../../redis/batch';
import { RedisError } from '../../redis/errors';
import { sleep } from '../../util/retry';
import { ask, bySlot, isCrossSlot } from './ask';
import type { Demand, Outcome, Reply } from './ask';
import type { LocalLimiter } from './local';

/** How long a charge may be taken back: longer than it takes to receive all other replies. After that it is final. */
export const RESERVE_MS = 2_000;

/** Pauses before a request asks again because its decision depends on others' reservations. */
const ASK_AGAIN_MS = [5, 10, 20, 40, 80, 160, 320] as const;

/** The outcome of each demand, in order. */
export interface Together {
  decision: Outcome['decision'];
  /** `reserved`: charged for now, to be confirmed or taken back. An error if Redis has not replied. */
  replies: ((Reply & { reserved: boolean; refused: boolean }) | RedisError)[];
}

/**
 * Asks about all demands of a request at once, all or nothing.
 *
 * One script decides all of them, so a request that one limit refuses is charged to no other. On a cluster that refuses
 * keys of different slots in one script, each slot is asked separately, in the same pipeline, and reserves. A reservation
 * counts like a charge, but does not refuse other requests until it is final. A request that fits only if reservations are
 * taken back asks again: their owner settles them as soon as it has all its replies.
 */
export async function askTogether(
  batch: RedisBatch,
  local: LocalLimiter,
  demands: readonly Demand[],
  { id, nowMs }: { id: string; nowMs: number },
): Promise<Together> {
  if (demands.length > 1) return askSeveral(batch, local, demands, { id, nowMs });
  // The common case, without the work for several demands.
  const alone = await askOnce(batch, demands, { id, reserveMs: 0, nowMs });
  const decision = alone instanceof RedisError ? 'admitted' : alone.decision;
  if (decision === 'undecided') return askSeveral(batch, local, demands, { id, nowMs, alone });
  return { decision, replies: [replyOf(alone, 0, { decision, isReserving: false })] };
}

/** @param alone the undecided outcome of a single demand */
async function askSeveral(
  batch: RedisBatch,
  local: LocalLimiter,
  demands: readonly Demand[],
  { id, nowMs, alone }: { id: string; nowMs: number; alone?: Outcome | RedisError },
): Promise<Together> {
  const all = demands.map((demand, index) => ({ ...demand, index }));
  let groups = demands.length > 1 && local.crossSlot ? bySlot(all) : [all];
  const reserveMs = () => (groups.length > 1 ? RESERVE_MS : 0);
  const askGroup = (group: readonly Demand[]) => askOnce(batch, group, { id, reserveMs: reserveMs(), nowMs });

  let outcomes = alone === undefined ? await Promise.all(groups.map(askGroup)) : [alone];
  if (demands.length > 1 && isCrossSlot(outcomes[0])) {
    local.crossSlot = true;
    groups = bySlot(all);
    outcomes = await Promise.all(groups.map(askGroup));
  }
  for (const waitMs of ASK_AGAIN_MS) {
    if (!isUndecided(outcomes)) break;
    await sleep(waitMs);
    outcomes = await Promise.all(
      groups.map(async (group, index) => {
        const before = outcomes[index]!;
        return isUndecided([before]) ? askGroup(group) : before;
      }),
    );
  }

  const decision = decisionOf(outcomes);
  const replies: Together['replies'] = [];
  for (const [which, group] of groups.entries()) {
    for (const [at, { index }] of group.entries()) {
      replies[index] = replyOf(outcomes[which]!, at, { decision, isReserving: groups.length > 1 });
    }
  }
  return { decision, replies };
}

async function askOnce(...args: Parameters<typeof ask>): Promise<Outcome | RedisError> {
  try {
    return await ask(...args);
  } catch (error) {
    if (!(error instanceof RedisError)) throw error;
    return error;
  }
}

/** The joint decision. A demand without a reply refuses nothing here. */
function decisionOf(outcomes: readonly (Outcome | RedisError)[]): Outcome['decision'] {
  const isAny = (decision: Outcome['decision']) =>
    outcomes.some((outcome) => !(outcome instanceof RedisError) && outcome.decision === decision);
  if (isAny('refused')) return 'refused';
  return isAny('undecided') ? 'undecided' : 'admitted';
}

function isUndecided(outcomes: readonly (Outcome | RedisError)[]): boolean {
  return decisionOf(outcomes) === 'undecided';
}

function replyOf(
  outcome: Outcome | RedisError,
  index: number,
  { decision, isReserving }: { decision: Outcome['decision']; isReserving: boolean },
): Together['replies'][number] {
  if (outcome instanceof RedisError) return outcome;
  const { atMs, verdicts } = outcome.replies[index]!;
  // Still undecided after all these waits: refuse until the reservations are final, unless another limit refuses anyway.
  for (const verdict of verdicts) {
    if (!verdict.undecided) continue;
    verdict.admitted = decision === 'refused';
    verdict.waitMs = RESERVE_MS;
  }
  return {
    atMs,
    verdicts,
    reserved: isReserving && outcome.decision === 'admitted',
    refused: verdicts.some(({ admitted }) => !admitted),
  };
}
