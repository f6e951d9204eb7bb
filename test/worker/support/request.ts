import { createExecutionContext, waitOnExecutionContext } from 'cloudflare:test';
import { env } from 'cloudflare:workers';

import type { createApp } from '../../../src/app';
import { configOf } from '../../../src/config/env';
import { runInScope } from '../../../src/services/runInScope';
import { createIsolate } from '../../../src/services/isolate';
import type { Isolate } from '../../../src/services/isolate';
import type { RequestScope } from '../../../src/services/scope';
import type { Answer, CallOptions } from '../../support/client';
import { UNLIMITED } from '../../support/unlimited';

/** Bindings of the tests with some settings of their own. */
export function bindings(settings: Record<string, unknown> = {}): Env {
  return { ...env, ...UNLIMITED, ...settings };
}

/** An isolate of its own: its breaker, its memories. */
export function isolateFor(bound: Env = bindings(), options: Parameters<typeof createIsolate>[1] = {}): Isolate {
  return createIsolate(configOf(bound), { email: (bound as { EMAIL?: SendEmail }).EMAIL, ...options });
}

interface RequestOptions {
  isolate?: Isolate;
  db?: D1Database;
  now?: () => number;
  random?: () => number;
}

/** Runs `fn` as a request would: with services, and with what is deferred sent at the end. */
export async function inRequest<T>(
  fn: (request: RequestScope) => Promise<T>,
  { isolate = isolateFor(), db = env.DB, now, random }: RequestOptions = {},
): Promise<T> {
  const context = createExecutionContext();
  const waitUntil = (promise: Promise<unknown>) => context.waitUntil(promise);
  try {
    return await runInScope(
      { isolate, db, waitUntil, ...(now && { now }), ...(random && { random }) },
      async (request) => {
        try {
          return await fn(request);
        } finally {
          request.waitUntil(request.batch.settle() ?? Promise.resolve());
        }
      },
    );
  } finally {
    await waitOnExecutionContext(context);
  }
}

/** Calls an app in this isolate, and waits for what it does after the answer. */
export function callerOf(app: ReturnType<typeof createApp>, bound: Env = bindings()) {
  return async (method: string, path: string, options: CallOptions = {}): Promise<Answer> => {
    const { token, body, raw, headers = {} } = options;
    const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body));
    const context = createExecutionContext();
    const response = await app.fetch(
      new Request(`http://gatehouse.test${path}`, {
        method,
        headers: {
          'CF-Connecting-IP': '203.0.113.9',
          ...(payload !== undefined && { 'Content-Type': 'application/json' }),
          ...(token !== undefined && { Authorization: `Bearer ${token}` }),
          ...headers,
        },
        ...(payload !== undefined && { body: payload }),
      }),
      bound,
      context,
    );
    const text = await response.text();
    await waitOnExecutionContext(context);
    const json = response.headers.get('Content-Type')?.includes('json') === true;
    return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text };
  };
}
