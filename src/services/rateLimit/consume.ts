import type { RedisBatch } from '../../redis/batch';
import type { Argument } from '../../redis/client';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import { rateLimitRecord } from '../../redis/scripts/rateLimitRecord';
import { recordArguments, requestId } from './ask';
import type { RecordItem } from './ask';
import type { BlockList } from './blocks';
import { quotasOf, refusalOf } from './decisions';
import type { RateLimitDecision } from './decisions';
import type { MirroredTimes } from './counter';
import type { RateLimitPolicy } from './limits';
import type { Leases } from './leases';
import type { LocalDemand, LocalLimiter } from './local';
import type { Report } from './reports';
import { askTogether } from './together';

/** The decision while Redis is away. `local`: by this isolate's counters. `open`: admit all. `closed`: refuse all (503). */
export type LimiterFailurePolicy = 'local' | 'open' | 'closed';

/** One limiter's part of a request. */
export interface ResolvedRequest extends LocalDemand {
  named: RateLimitPolicy;
  whenUnavailable: LimiterFailurePolicy;
}

export interface ConsumeDeps {
  batch: RedisBatch;
  local: LocalLimiter;
  blocked: BlockList;
  leases: Leases;
  now: () => number;
  degraded: (what: string) => void;
}

/** The most counters whose spending is reported after one response. */
const REPORTS_AT_ONCE = 20;

/** Decides a request under all of its limiters together, all or nothing. */
export async function consumeTogether(
  deps: ConsumeDeps,
  requests: readonly ResolvedRequest[],
): Promise<RateLimitDecision[]> {
  const { batch, local, blocked, leases, now, degraded } = deps;
  const id = requestId();
  const askedAtMs = now();
  const refusals = refusedByOwn(deps, requests, askedAtMs);
  if (refusals !== undefined) return refusals;
  const { decision, replies } = await askTogether(batch, local, requests, { id, nowMs: askedAtMs });
  const nowMs = now();
  if (decision === 'admitted') {
    const doubted = doubtedOf(local, requests, replies, nowMs);
    if (doubted.length > 0) {
      const contradicted = await refusedByLoss(deps, requests, replies, { id, askedAtMs, doubted });
      if (contradicted !== undefined) return contradicted;
    }
  }
  const parts = requests.map((request, index) => ({ request, reply: replies[index]! }));
  const failed = parts.filter(({ reply }) => reply instanceof RedisError).map(({ request }) => request);
  for (const { whenUnavailable } of failed) degraded(`limiter=${whenUnavailable}`);
  if (failed.length < requests.length) sendReports(deps);

  // Decided by this isolate, unless the request is already refused.
  const isClosed = failed.some(({ whenUnavailable }) => whenUnavailable === 'closed');
  const own = failed.filter(({ whenUnavailable }) => whenUnavailable === 'local');
  const stillOpen = decision === 'admitted' && !isClosed;
  const ownVerdicts = stillOpen && own.length > 0 ? local.consume(own, nowMs) : [];
  const admitted = stillOpen && ownVerdicts.every((verdicts) => verdicts.every((verdict) => verdict.admitted));

  return parts.map(({ request, reply }): RateLimitDecision => {
    const { named: policy, key, limits, cost, whenUnavailable } = request;
    if (reply instanceof RedisError) {
      // Units that this isolate now spends without Redis must not add up with a lease.
      leases.drop(key, nowMs);
      // The call may have been executed. Its charge is then taken back, or counted once with the report.
      const sent = mayHaveRun(reply);
      let reportedAs = id;
      if (whenUnavailable === 'local' && cost > 0) {
        if (admitted) reportedAs = local.reports.add(key, limits, { id, units: cost, atMs: askedAtMs, sent });
        else if (sent) local.reports.add(key, limits, { id: requestId(), of: id, units: -cost, atMs: askedAtMs, sent });
      }
      if (whenUnavailable === 'closed') return { allowed: false, reason: 'unavailable' };
      if (whenUnavailable === 'open') {
        return admitted
          ? { allowed: true, source: 'none', quotas: [], settle: () => undefined }
          : { allowed: false, reason: 'together' };
      }
      const verdicts = ownVerdicts[own.indexOf(request)];
      if (admitted) {
        const settle = (units: number) => settleOwn(deps, request, { id: reportedAs, units, atMs: askedAtMs });
        return { allowed: true, source: 'local', quotas: quotasOf(policy, verdicts ?? []), settle };
      }
      if (verdicts === undefined || verdicts.every((verdict) => verdict.admitted)) {
        return { allowed: false, reason: 'together' };
      }
      blocked.add(key, limits, verdicts, cost, nowMs);
      return refusalOf(policy, verdicts, 'local');
    }

    const charge: Charge = { id, atMs: reply.atMs, chargedAtMs: askedAtMs };
    if (admitted) {
      if (reply.reserved) recordAside(deps, request, { time: reply.atMs, units: 0, id });
      charge.times = local.mirror(request, askedAtMs, { counterAtMs: reply.atMs }, nowMs);
      const settle = (units: number) => settleCharged(deps, request, charge, units);
      const left = leastOf(reply.verdicts, local.quotas(request, nowMs));
      const undo = () => takeBackNow(deps, request, charge);
      return { allowed: true, source: 'redis', quotas: quotasOf(policy, left), settle, undo };
    }
    if (reply.reserved) takeBack(deps, request, charge);
    if (!reply.refused) return { allowed: false, reason: 'together' };
    leases.drop(key, nowMs);
    if (decision === 'refused') blocked.add(key, limits, reply.verdicts, cost, nowMs);
    return refusalOf(policy, reply.verdicts, 'redis');
  });
}

interface Left {
  remaining: number;
  resetMs: number;
}

/** Redis may have lost units that this isolate still counts and refuses for. Promise no more units than both have left. */
const leastOf = (known: readonly Left[], own: readonly Left[] | undefined): readonly Left[] =>
  known.map((left, index) => {
    const mine = own?.[index];
    return mine !== undefined && mine.remaining < left.remaining ? mine : left;
  });

type Replies = Awaited<ReturnType<typeof askTogether>>['replies'];

/** Requests that Redis has admitted although this isolate's own window refuses them. */
function doubtedOf(
  local: LocalLimiter,
  requests: readonly ResolvedRequest[],
  replies: Replies,
  nowMs: number,
): readonly ResolvedRequest[] {
  return requests.filter(
    (request, index) => !(replies[index] instanceof RedisError) && local.contradiction(request, nowMs) !== undefined,
  );
}

/**
 * Redis has lost units that it admitted through this isolate (a flush, a snapshot, a failover): this isolate's own window
 * refuses, and the charge is taken back. If a counter was reset or rewarded on purpose, a mark beside it says so, and
 * Redis's decision stands.
 */
async function refusedByLoss(
  deps: ConsumeDeps,
  requests: readonly ResolvedRequest[],
  replies: Replies,
  { id, askedAtMs, doubted }: { id: string; askedAtMs: number; doubted: readonly ResolvedRequest[] },
): Promise<RateLimitDecision[] | undefined> {
  const { batch, local, blocked, now } = deps;
  await Promise.all(
    doubted.map(async ({ key }) => {
      const mark = await batch.send('GET', resetMark(key)).catch(() => null);
      if (mark !== null) local.reset(key);
    }),
  );
  // Other requests may have been counted meanwhile, so judge by the window that ends now.
  const nowMs = now();
  const verdicts = requests.map((request) =>
    doubted.includes(request) ? local.contradiction(request, nowMs) : undefined,
  );
  if (verdicts.every((own) => own === undefined)) return undefined;
  deps.degraded('limiter=local');
  return requests.map((request, index): RateLimitDecision => {
    const reply = replies[index];
    if (reply !== undefined && !(reply instanceof RedisError)) {
      takeBack(deps, request, { id, atMs: reply.atMs, chargedAtMs: askedAtMs });
    }
    const own = verdicts[index];
    if (own === undefined) return { allowed: false, reason: 'together' };
    blocked.add(request.key, request.limits, own, request.cost, nowMs);
    return refusalOf(request.named, own, 'local');
  });
}

/**
 * A key beside a counter, in its slot: the counter was reset or rewarded on purpose, which isolates cannot see from the
 * counter.
 */
export const resetMark = (key: string) => `${key}:reset`;

/** A charge in Redis. */
interface Charge {
  id: string;
  /** By the counter's clock. */
  atMs: number;
  /** By this isolate's clock. */
  chargedAtMs: number;
  /** Where this isolate's own counter has it. */
  times?: MirroredTimes | undefined;
}

/** Gives the charge of a refused request back at once, so that it does not refuse other requests. */
function takeBack(deps: ConsumeDeps, request: ResolvedRequest, { id, atMs, chargedAtMs }: Charge): void {
  const { key, limits, cost } = request;
  if (cost === 0) return;
  const item = { id: requestId(), of: id, units: -cost };
  recordAside(deps, request, { ...item, time: atMs }, () =>
    deps.local.reports.add(key, limits, { ...item, atMs: chargedAtMs, sent: true }),
  );
}

/**
 * Gives a charge back before the same request is decided again. If Redis does not reply, the charge stays until it is
 * reported.
 */
async function takeBackNow(
  deps: ConsumeDeps,
  request: ResolvedRequest,
  { id, atMs, chargedAtMs, times }: Charge,
): Promise<void> {
  const { batch, local, leases, now } = deps;
  const { key, limits, cost } = request;
  leases.drop(key, now());
  if (cost === 0) return;
  const item = { id: requestId(), of: id, units: -cost };
  local.record(request, -cost, { atMs: chargedAtMs, nowMs: now(), pinned: false, times });
  try {
    await batch.run(rateLimitRecord, [key], recordArguments(limits, now(), [{ ...item, time: atMs }]));
  } catch (error) {
    if (!(error instanceof RedisError)) throw error;
    local.reports.add(key, limits, { ...item, atMs: chargedAtMs, sent: true });
  }
}

/** After the response: corrects the cost of a request, at the time at which it was charged. */
function settleCharged(deps: ConsumeDeps, request: ResolvedRequest, charge: Charge, units: number): void {
  if (units === 0) return;
  const { batch, local, now } = deps;
  const { key, limits } = request;
  const { id, atMs, chargedAtMs, times } = charge;
  const item = { id: requestId(), units, ...(units < 0 && { of: `${id}?` }) };
  local.record(request, units, { atMs: chargedAtMs, nowMs: now(), pinned: false, times });
  batch
    .deferRun(rateLimitRecord, [key], recordArguments(limits, now(), [{ ...item, time: atMs }]))
    // The call may not have been executed: report it once Redis is back.
    .catch(() => local.reports.add(key, limits, { ...item, atMs: chargedAtMs, sent: true }));
}

/** The same for a request that this isolate has admitted without Redis. */
function settleOwn(
  { local, now }: ConsumeDeps,
  request: ResolvedRequest,
  { id, units, atMs }: { id: string; units: number; atMs: number },
): void {
  if (units === 0) return;
  local.record(request, units, { atMs, nowMs: now(), pinned: true });
  const item = { id: requestId(), units, atMs, sent: false };
  local.reports.add(request.key, request.limits, units < 0 ? { ...item, of: id } : item);
}

function recordAside(
  { batch, now }: ConsumeDeps,
  { key, limits }: ResolvedRequest,
  item: RecordItem,
  onFailure: () => void = () => undefined,
): void {
  batch.runAside(rateLimitRecord, [key], recordArguments(limits, now(), [item])).catch(onFailure);
}

/** Redis is back: after the response, reports the units that this isolate has spent without it. */
function sendReports({ batch, local, now }: ConsumeDeps): void {
  const nowMs = now();
  for (const report of local.reports.take(REPORTS_AT_ONCE, nowMs)) {
    batch
      .deferRun(rateLimitRecord, [report.key], reportArguments(report, nowMs))
      .catch((error: unknown) => local.reports.restore(report, nowMs, mayHaveRun(error)));
  }
}

/**
 * For counters whose spending Redis may not know. The spending is reported first, in the same pipeline as the question.
 * While the report may not have arrived, this isolate's own window decides first: units admitted without Redis count
 * whether or not Redis knows them.
 */
function refusedByOwn(
  { batch, local, blocked }: ConsumeDeps,
  requests: readonly ResolvedRequest[],
  nowMs: number,
): RateLimitDecision[] | undefined {
  if (local.reports.size === 0) return undefined;
  let isRefused = false;
  const decisions = requests.map((request): RateLimitDecision => {
    const { named: policy, key, limits, cost } = request;
    if (!local.reports.has(key)) return { allowed: false, reason: 'together' };
    const report = local.reports.takeOf(key);
    if (report !== undefined) {
      batch
        .run(rateLimitRecord, [key], reportArguments(report, nowMs))
        .catch((error: unknown) => local.reports.restore(report, nowMs, mayHaveRun(error)));
    }
    const verdicts = local.verdicts(request, nowMs);
    if (verdicts.every(({ admitted }) => admitted)) return { allowed: false, reason: 'together' };
    isRefused = true;
    blocked.add(key, limits, verdicts, cost, nowMs);
    return refusalOf(policy, verdicts, 'local');
  });
  return isRefused ? decisions : undefined;
}

/** Each item carries the time at which its units were spent: items that have left the window have no effect. */
function reportArguments({ limits, items }: Report, nowMs: number): Argument[] {
  const sent = items.map(({ id, units, of, atMs }) => ({ time: Math.min(0, atMs - nowMs), units, id, of }));
  return recordArguments(limits, nowMs, sent);
}

/** Whether the call may have been executed. */
export function mayHaveRun(error: unknown): boolean {
  return !(error instanceof RedisUnavailable && error.reason === 'breaker');
}
