import { randomUUID } from 'node:crypto';

import { testBindings } from '../../../support/bindings.ts';
import { bundlePeer, startWorkers } from '../../support/workers.ts';
import type { WorkerOptions } from '../../support/workers.ts';

export const CASES = ['gatehouse', 'bentocache', 'bentocache-l2', 'cachified', 'cacheable'] as const;
export type CaseName = (typeof CASES)[number];

const FILES: Record<CaseName, string> = {
  gatehouse: 'cache/gatehouse.ts',
  bentocache: 'cache/bentocache.ts',
  'bentocache-l2': 'cache/bentocache.ts',
  cachified: 'cache/cachified.ts',
  cacheable: 'cache/cacheable.ts',
};

export interface Caches extends AsyncDisposable {
  /**
   * Where a case listens: two isolates that share what is in Redis. `measured` speaks to the `delayedUrl` of Redis,
   * `other` to its `url`.
   */
  url(name: CaseName, isolate: 'measured' | 'other'): string;
}

export async function startCaches(redis: { url: string; delayedUrl: string; token: string }): Promise<Caches> {
  const scripts = await Promise.all(CASES.map((name) => bundlePeer(FILES[name])));
  const settings = testBindings({ url: redis.url, token: redis.token });
  const workers = CASES.flatMap((name, index): WorkerOptions[] => {
    const script = scripts[index] ?? '';
    const prefix = `bench-${randomUUID().slice(0, 8)}`;
    const bindings = {
      ...settings,
      KEY_PREFIX: prefix,
      PREFIX: prefix,
      L1: name === 'bentocache-l2' ? 'off' : 'on',
      // The peers wait for Redis as long as it takes.
      REDIS_GUARD_DEADLINE_MS: '10000',
      REDIS_CALL_TIMEOUT_MS: '30000',
    };
    return [
      { name: `${name}-measured`, script, bindings: { ...bindings, UPSTASH_REDIS_REST_URL: redis.delayedUrl } },
      { name: `${name}-other`, script, bindings },
    ];
  });
  const running = await startWorkers(workers);
  return {
    url: (name, isolate) => running.urls.get(`${name}-${isolate}`) ?? '',
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  };
}
