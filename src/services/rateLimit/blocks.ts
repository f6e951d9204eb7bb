import { BoundedMap } from '../../util/boundedMap';
import { limitName } from './limits';
import type { Limit, LimitVerdict, RateLimitPolicy } from './limits';

/** A refusal that needs no call to Redis. */
export interface Block {
  violated: readonly string[];
  retryAfterMs: number;
}

/** A limit's refusal of requests with one cost. */
interface Refusal extends Limit {
  cost: number;
  /** Refused from memory from `sinceMs` until `untilMs`; free at `freeAtMs` at the earliest. */
  sinceMs: number;
  untilMs: number;
  freeAtMs: number;
}

/** A caller is refused from memory for at most this long, so that a reset or a raised limit is noticed. */
const MAX_BLOCK_MS = 5_000;

/** The most remembered refusals per counter: by different limits, or of different costs. */
const MAX_REFUSALS = 8;

/**
 * The refusals that this isolate remembers. Each applies only to the limit that refused, and to requests of the same cost.
 * Redis decides about a limiter with other numbers on the same counter, and about other costs.
 */
export class BlockList {
  readonly #refusals = new BoundedMap<string, readonly Refusal[]>(10_000);

  find(key: string, policy: RateLimitPolicy, cost: number, nowMs: number): Block | undefined {
    const refusals = this.#refusals.get(key);
    if (refusals === undefined) return undefined;
    const violated: string[] = [];
    let freeAtMs = 0;
    for (const limit of policy.limits) {
      const refusal = refusals.find((known) => known.cost === cost && same(known, limit) && isOn(known, nowMs));
      if (refusal === undefined) continue;
      violated.push(limitName(policy, limit));
      freeAtMs = Math.max(freeAtMs, refusal.freeAtMs);
    }
    return violated.length === 0 ? undefined : { violated, retryAfterMs: freeAtMs - nowMs };
  }

  add(key: string, limits: readonly Limit[], verdicts: readonly LimitVerdict[], cost: number, nowMs: number): void {
    const refused = limits.flatMap((limit, index): Refusal[] => {
      const verdict = verdicts[index];
      if (verdict === undefined || verdict.admitted) return [];
      const untilMs = nowMs + Math.min(verdict.waitMs, MAX_BLOCK_MS);
      return [{ ...limit, cost, sinceMs: nowMs, untilMs, freeAtMs: nowMs + verdict.waitMs }];
    });
    const others = (this.#refusals.get(key) ?? []).filter(
      (known) => isOn(known, nowMs) && !refused.some((fresh) => fresh.cost === known.cost && same(fresh, known)),
    );
    this.#refusals.set(key, [...refused, ...others].slice(0, MAX_REFUSALS));
  }

  delete(key: string): void {
    this.#refusals.delete(key);
  }
}

function same(a: Limit, b: Limit): boolean {
  return a.maxRequests === b.maxRequests && a.windowMs === b.windowMs && a.algorithm === b.algorithm;
}

/** Also off if the clock was set back to before the refusal began. */
function isOn({ sinceMs, untilMs }: Refusal, nowMs: number): boolean {
  return sinceMs <= nowMs && nowMs < untilMs;
}
