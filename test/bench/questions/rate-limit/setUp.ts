import { randomUUID } from 'node:crypto';

import { testBindings } from '../../../support/bindings.ts';
import type { BenchRedis } from '../../support/redis.ts';
import { bundlePeer, startWorkers } from '../../support/workers.ts';
import type { WorkerOptions } from '../../support/workers.ts';

export const CASES = ['gatehouse', 'upstash-ratelimit'] as const;
export type CaseName = (typeof CASES)[number];
/** The cases, and @upstash/ratelimit without its cache of refusals. */
export type VariantName = CaseName | 'upstash-ratelimit-uncached';

interface Numbers {
  maxRequests: number;
  windowMs: number;
}

/** What callers get a share of. */
export const SHARE: Numbers = { maxRequests: 100, windowMs: 1_000 };
/** Quickly reached, and too long to be over before the check is. */
export const CHECK: Numbers = { maxRequests: 5, windowMs: 3_600_000 };
/** Never reached. */
const ENOUGH: Numbers = { maxRequests: 100_000_000, windowMs: 3_600_000 };

export interface Limiters extends AsyncDisposable {
  /**
   * Where a case listens. `counted`: behind the counting, delaying proxy; `direct`: on the gateway itself; both with a
   * limit that is never reached. `share` and `check`: on the gateway, with those numbers.
   */
  url(name: VariantName, kind: 'counted' | 'direct' | 'share' | 'check'): string;
}

/** Starts every case. */
export async function startLimiters(redis: BenchRedis): Promise<Limiters> {
  const [ours, theirs] = await Promise.all([
    bundlePeer('rate-limit/gatehouse.ts'),
    bundlePeer('rate-limit/upstash-ratelimit.ts'),
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
      worker('check', CHECK),
    ];
  };
  const running = await startWorkers([
    // The peer waits five seconds for Redis; ours must not decide by itself any sooner.
    ...workersOf('gatehouse', ours, { REDIS_GUARD_DEADLINE_MS: '5000', REDIS_CALL_TIMEOUT_MS: '30000' }),
    ...workersOf('upstash-ratelimit', theirs, {}),
    ...workersOf('upstash-ratelimit-uncached', theirs, { EPHEMERAL_CACHE: 'off' }),
  ]);
  return {
    url: (name, kind) => running.urls.get(`${name}-${kind}`) ?? '',
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  };
}
