import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { Hono } from 'hono';

import { createApp } from '../../../src/app';
import { onError } from '../../../src/middlewares/error.middleware';
import { services } from '../../../src/middlewares/services.middleware';
import type { AppEnv } from '../../../src/middlewares/services.middleware';
import { RedisUnavailable } from '../../../src/redis/errors';
import type { Command } from '../../../src/redis/client';
import type { Isolate } from '../../../src/services/isolate';
import { clockedClient } from './limits';
import { bindings, isolateFor } from './request';

/** One clock for all isolates of a test, and for what limits count in Redis. */
export interface Clock {
  nowMs: number;
}

/** A visit, with the pipelines that its response waited for and those that left after it. */
export interface Visit {
  status: number;
  headers: Headers;
  // oxlint-disable-next-line typescript/no-explicit-any -- any JSON
  body: any;
  blocking: Command[][];
  after: Command[][];
  fromMemory: boolean;
}

export interface VisitOptions {
  token?: string;
  body?: object;
  method?: string;
  address?: string;
}

/** An isolate that records its pipelines, on the test's clock. `isAway`: Redis refuses its connections. */
export function memoryIsolate(
  clock: Clock,
  settings: Record<string, unknown> = {},
  mount?: (app: Hono<AppEnv>) => void,
) {
  const bound = bindings(settings);
  const sent: Command[][] = [];
  const replied = new Set<Command[]>();
  const redis = { isAway: false };
  const real = clockedClient(() => clock.nowMs);
  const isolate: Isolate = isolateFor(bound, {
    now: () => clock.nowMs,
    client: {
      async execute(commands) {
        if (redis.isAway) throw new RedisUnavailable('refused');
        const pipeline = [...commands];
        sent.push(pipeline);
        const replies = await real.execute(commands);
        replied.add(pipeline);
        return replies;
      },
    },
  });
  const options = { isolate, now: () => clock.nowMs };
  let app = createApp(options);
  if (mount !== undefined) {
    const own = new Hono<AppEnv>().use(services(options));
    mount(own);
    own.onError(onError);
    app = own;
  }

  async function visit(path: string, { token, body, method, address = '203.0.113.9' }: VisitOptions = {}) {
    const before = sent.length;
    const context = createExecutionContext();
    const response = await app.fetch(
      new Request(`http://gatehouse.test${path}`, {
        method: method ?? (body === undefined ? 'GET' : 'POST'),
        headers: {
          'CF-Connecting-IP': address,
          ...(body !== undefined && { 'Content-Type': 'application/json' }),
          ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      }),
      bound,
      context,
    );
    // A response that did not wait for a pipeline is there before its reply can be.
    const awaited = new Set(sent.slice(before).filter((pipeline) => replied.has(pipeline)));
    const text = await response.text();
    await waitOnExecutionContext(context);
    const own = sent.slice(before);
    const { status, headers } = response;
    return {
      status,
      headers,
      body: headers.get('Content-Type')?.includes('json') === true ? JSON.parse(text) : text,
      blocking: own.filter((pipeline) => awaited.has(pipeline)),
      after: own.filter((pipeline) => !awaited.has(pipeline)),
      fromMemory: headers.get('Cache-Status')?.includes('detail=memory') === true,
    } satisfies Visit;
  }

  return { visit, isolate, sent, redis, bound };
}

export const namesOf = (pipelines: readonly (readonly Command[])[]) =>
  pipelines.map((commands) => commands.map(([name]) => name));
