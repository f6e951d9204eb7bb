import type { RedisBatch } from '../../redis/batch';
import type { Argument } from '../../redis/client';
import { RedisError, RedisUnavailable } from '../../redis/errors';
import { rateLimitRecord } from '../../redis/scripts/rateLimitRecord';
import { recordArguments, requestId } from './ask';
import type { RecordItem } from './ask';
import type { BlockList } from './blocks';
import { quotasOf, refusalOf } from './decisions';
import type { RateLimitDecision } from './decisions';
import type { RateLimitPolicy } from './limits';
import type { Leases } from './leases';
import type { LocalDemand, LocalLimiter } from './local';
import type { Report } from './reports';
import { askTogether } from './together';

/** What decides while Redis is away: this isolate's own counters, every request passes, or none (503). */
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

/** Counters whose spending is reported with one response. */
const REPORTS_AT_ONCE = 20;

/** Decides over one request under all limiters that were asked together, all or nothing. */
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

  // What this isolate has to decide by itself, unless the request is refused already.
  const isClosed = failed.some(({ whenUnavailable }) => whenUnavailable === 'closed');
  const own = failed.filter(({ whenUnavailable }) => whenUnavailable === 'local');
  const stillOpen = decision === 'admitted' && !isClosed;
  const ownVerdicts = stillOpen && own.length > 0 ? local.consume(own, nowMs) : [];
  const admitted = stillOpen && ownVerdicts.every((verdicts) => verdicts.every((verdict) => verdict.admitted));

  return parts.map(({ request, reply }): RateLimitDecision => {
    const { named: policy, key, limits, cost, whenUnavailable } = request;
    if (reply instanceof RedisError) {
      // What this isolate now spends by itself, and a lease, would add up.
      leases.drop(key, nowMs);
      // The call may have been executed: its charge is taken back, or is counted once with the report.
      const sent = mayHaveRun(reply);
      if (whenUnavailable === 'local' && cost > 0) {
        if (admitted) local.reports.add(key, limits, { id, units: cost, atMs: askedAtMs, sent });
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
        const settle = (units: number) => settleOwn(deps, request, { id, units, atMs: askedAtMs });
        return { allowed: true, source: 'local', quotas: quotasOf(policy, verdicts ?? []), settle };
      }
      if (verdicts === undefined || verdicts.every((verdict) => verdict.admitted)) {
        return { allowed: false, reason: 'together' };
      }
      blocked.add(key, limits, verdicts, cost, nowMs);
      return refusalOf(policy, verdicts, 'local');
    }

    const charge = { id, atMs: reply.atMs, chargedAtMs: askedAtMs };
    if (admitted) {
      if (reply.reserved) recordAside(deps, request, { time: reply.atMs, units: 0, id });
      local.mirror(request, askedAtMs, nowMs);
      const settle = (units: number) => settleCharged(deps, request, charge, units);
      const left = leastOf(reply.verdicts, local.quotas(request, nowMs));
      return { allowed: true, source: 'redis', quotas: quotasOf(policy, left), settle };
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

/** Redis may have lost units that this isolate still counts, and will refuse for: more is not promised than both have. */
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
 * refuses, and the charge is taken back. A counter that was reset or rewarded on purpose has a mark beside it; then Redis is
 * right.
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
  // Other requests may have been counted meanwhile: a window that ends earlier than they do says nothing any more.
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

/** Beside a counter, in its slot: it was reset, or units were given back, for a reason that no isolate can see. */
export const resetMark = (key: string) => `${key}:reset`;

/** What Redis has charged. */
interface Charge {
  id: string;
  /** The counter's time. */
  atMs: number;
  /** This isolate's. */
  chargedAtMs: number;
}

/** Gives back at once the charge of a request that is refused after all, so that it does not refuse others. */
function takeBack(deps: ConsumeDeps, request: ResolvedRequest, { id, atMs, chargedAtMs }: Charge): void {
  const { key, limits, cost } = request;
  if (cost === 0) return;
  const item = { id: requestId(), of: id, units: -cost };
  recordAside(deps, request, { ...item, time: atMs }, () =>
    deps.local.reports.add(key, limits, { ...item, atMs: chargedAtMs, sent: true }),
  );
}

/** After the response: what a request cost after all, at the time at which it was charged. */
function settleCharged(deps: ConsumeDeps, request: ResolvedRequest, charge: Charge, units: number): void {
  if (units === 0) return;
  const { batch, local, now } = deps;
  const { key, limits } = request;
  const { atMs, chargedAtMs } = charge;
  const item = { id: requestId(), units };
  local.record(request, units, chargedAtMs, now(), false);
  batch
    .deferRun(rateLimitRecord, [key], recordArguments(limits, now(), [{ ...item, time: atMs }]))
    // Not executed, perhaps: it is reported once Redis is back.
    .catch(() => local.reports.add(key, limits, { ...item, atMs: chargedAtMs, sent: true }));
}

/** The same for what this isolate has admitted by itself. */
function settleOwn(
  { local, now }: ConsumeDeps,
  request: ResolvedRequest,
  { id, units, atMs }: { id: string; units: number; atMs: number },
): void {
  if (units === 0) return;
  local.record(request, units, atMs, now(), true);
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

/** Redis is back: what this isolate has spent without it is reported after the response. */
function sendReports({ batch, local, now }: ConsumeDeps): void {
  const nowMs = now();
  for (const report of local.reports.take(REPORTS_AT_ONCE, nowMs)) {
    batch
      .deferRun(rateLimitRecord, [report.key], reportArguments(report, nowMs))
      .catch((error: unknown) => local.reports.restore(report, nowMs, mayHaveRun(error)));
  }
}

/**
 * For counters whose spending Redis may not know. It is reported before Redis is asked, in the same pipeline, and while
 * the report may not have arrived, this isolate's own window decides first: units that it has admitted by itself
 * count whether or not Redis knows them.
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

/** With the times at which it was spent, so that what has left the window by now changes nothing. */
function reportArguments({ limits, items }: Report, nowMs: number): Argument[] {
  const told = items.map(({ id, units, of, atMs }) => ({ time: Math.min(0, atMs - nowMs), units, id, of }));
  return recordArguments(limits, nowMs, told);
}

/** Whether the call may have been executed. */
export function mayHaveRun(error: unknown): boolean {
  return !(error instanceof RedisUnavailable && error.reason === 'breaker');
}
