import { randomUUID } from 'node:crypto';

import { testBindings } from '../../../support/bindings.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { bundlePeer, startWorkers } from '../../support/workers.ts';
import type { WorkerOptions } from '../../support/workers.ts';

export const CASES = ['gatehouse', 'gatehouse-within', 'upstash-ratelimit'] as const;
export type CaseName = (typeof CASES)[number];
/** Limiters of which only the worst window is measured. */
export const WINDOW_CASES = ['upstash-fixed-window', 'hono-rate-limiter'] as const;
/** The cases, and @upstash/ratelimit without its cache of refusals. */
export type ShareName = CaseName | 'upstash-ratelimit-uncached';
export type VariantName = ShareName | (typeof WINDOW_CASES)[number];

interface Numbers {
  maxRequests: number;
  windowMs: number;
}

/** What callers get a share of. */
export const SHARE: Numbers = { maxRequests: 100, windowMs: 1_000 };
/** Long enough for a burst at the end of a window to be short beside it. */
export const WORST: Numbers = { maxRequests: 100, windowMs: 4_000 };
/** Quickly reached, and too long to be over before the check is. */
export const CHECK: Numbers = { maxRequests: 5, windowMs: 3_600_000 };
/** Never reached. */
const ENOUGH: Numbers = { maxRequests: 100_000_000, windowMs: 3_600_000 };

export interface Limiters extends AsyncDisposable {
  /**
   * Where a case listens. `counted`: behind the counting, delaying proxy; `direct`: on the gateway itself; both with a
   * limit that is never reached. `share`, `worst` and `check`: on the gateway, with those numbers.
   */
  url(name: VariantName, kind: 'counted' | 'direct' | 'share' | 'worst' | 'check'): string;
}

/** Starts every case. */
export async function startLimiters(redis: BenchRedis): Promise<Limiters> {
  const [ours, theirs, fixed] = await Promise.all([
    bundlePeer('rate-limit/gatehouse.ts'),
    bundlePeer('rate-limit/upstash-ratelimit.ts'),
    bundlePeer('rate-limit/hono-rate-limiter.ts'),
  ]);
  const settings = testBindings({ url: redis.url, token: redis.token });
  const workersOf = (name: VariantName, script: string, more: Record<string, string>): WorkerOptions[] => {
    const prefix = `bench-${randomUUID().slice(0, 8)}`;
    const worker = (kind: string, numbers: Numbers, url = redis.url): WorkerOptions => ({
      name: `${name}-${kind}`,
      script,
      bindings: {
        ...settings,
        ...more,
        UPSTASH_REDIS_REST_URL: url,
        KEY_PREFIX: `${prefix}-${kind}`,
        MAX_REQUESTS: String(numbers.maxRequests),
        WINDOW_MS: String(numbers.windowMs),
      },
    });
    return [
      worker('counted', ENOUGH, redis.delayedUrl),
      worker('direct', ENOUGH),
      worker('share', SHARE),
      worker('worst', WORST),
      worker('check', CHECK),
    ];
  };
  // The peer waits five seconds for Redis; ours must not decide by itself any sooner.
  const patient = { REDIS_GUARD_DEADLINE_MS: '5000', REDIS_CALL_TIMEOUT_MS: '30000' };
  const running = await startWorkers([
    ...workersOf('gatehouse', ours, patient),
    ...workersOf('gatehouse-within', ours, { ...patient, WITHIN_MS: '1000' }),
    ...workersOf('upstash-ratelimit', theirs, {}),
    ...workersOf('upstash-ratelimit-uncached', theirs, { EPHEMERAL_CACHE: 'off' }),
    ...workersOf('upstash-fixed-window', theirs, { WINDOW: 'fixed' }),
    ...workersOf('hono-rate-limiter', fixed, {}),
  ]);
  return {
    url: (name, kind) => running.urls.get(`${name}-${kind}`) ?? '',
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  };
}
