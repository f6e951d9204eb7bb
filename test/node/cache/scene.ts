import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import { startApp } from '../../support/app.ts';
import { bundleTestWorker } from '../../support/testWorker.ts';

/** Where loaders get their values: it counts them, and holds them up. */
export interface Truth extends AsyncDisposable {
  readonly url: string;
  /** What loaders read from now on, by name. */
  readonly values: Map<string, string>;
  /** How often each was read. */
  readonly reads: Map<string, number>;
  /** Names whose readers get nothing until they are released; what they get was read when they asked. */
  hold(name: string): () => void;
  /** Resolves when a name has been read so often. */
  read(name: string, times?: number): Promise<void>;
}

export async function startTruth(): Promise<Truth> {
  const values = new Map<string, string>();
  const reads = new Map<string, number>();
  const held = new Map<string, Promise<void>>();
  const server = createServer((request, response) => {
    const name = decodeURIComponent((request.url ?? '/').slice(1));
    const value = values.get(name);
    reads.set(name, (reads.get(name) ?? 0) + 1);
    void (held.get(name) ?? Promise.resolve()).then(() => {
      response.writeHead(value === undefined ? 500 : 200).end(value);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    values,
    reads,
    hold(name) {
      const { promise, resolve } = Promise.withResolvers<void>();
      held.set(name, promise);
      return () => {
        held.delete(name);
        resolve();
      };
    },
    async read(name, times = 1) {
      const untilMs = performance.now() + 60_000;
      while ((reads.get(name) ?? 0) < times) {
        if (performance.now() > untilMs) throw new Error(`${name} was not read ${times} times`);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export const bundleCacheWorker = () => bundleTestWorker('cacheWorker.ts');

export interface CacheApp extends AsyncDisposable {
  post<T = { value: unknown; from: string }>(
    path: string,
    body: unknown,
    aheadMs?: number,
    signal?: AbortSignal,
  ): Promise<{ status: number; body: T; degraded: string }>;
}

/** An isolate of workerd. Those with the same prefix share what is cached. */
export async function startCacheApp(
  bundle: string,
  redis: { url: string; token: string },
  truth: Truth,
  settings: Record<string, string> = {},
): Promise<CacheApp> {
  const app = await startApp({
    bundle,
    redis,
    // A busy machine must not make an isolate go without its cache.
    settings: { REDIS_GUARD_DEADLINE_MS: '10000', REDIS_CALL_TIMEOUT_MS: '20000', TRUTH_URL: truth.url, ...settings },
  });
  return {
    async post(path, body, aheadMs = 0, signal) {
      const response = await fetch(`${app.url}${path}`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', 'X-Clock': String(aheadMs) },
        body: JSON.stringify(body),
        ...(signal && { signal }),
      });
      return {
        status: response.status,
        body: (await response.json()) as never,
        degraded: response.headers.get('Gatehouse-Degraded') ?? '',
      };
    },
    [Symbol.asyncDispose]: () => app[Symbol.asyncDispose](),
  };
}

export const newPrefix = (): string => `t${randomUUID().slice(0, 8)}`;
