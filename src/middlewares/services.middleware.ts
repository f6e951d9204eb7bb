import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';

import { runInScope } from '../services';
import { isolateOf } from '../services/isolate';
import type { Isolate } from '../services/isolate';
import type { RequestScope } from '../services/scope';
import { deviceOf } from './clientDevice';

/** What every handler finds in its context. */
export interface AppEnv {
  Bindings: Env;
  Variables: { requestId: string; request: RequestScope };
}

export interface ServicesOptions {
  /** In place of the isolate's own, for tests. */
  isolate?: Isolate;
  now?: () => number;
}

/** Opens a request's scope, runs the request in it, and sends after the response what was left for then. */
export function services({ isolate, now = Date.now }: ServicesOptions = {}) {
  return createMiddleware<AppEnv>(async function services(c, next) {
    const context = {
      isolate: isolate ?? isolateOf(c.env),
      db: c.env.DB,
      waitUntil: runtimeWaitUntil(c),
      origin: () => deviceOf(c),
      now,
    };
    await runInScope(context, async (scope) => {
      c.set('request', scope);
      trackWaitUntil(c, scope);
      await next();
      for (const settle of scope.afterResponse) settle();
      if (scope.degraded.size > 0) c.res.headers.set('Gatehouse-Degraded', [...scope.degraded].join(', '));
      const deferred = scope.batch.settle();
      if (deferred !== undefined) scope.waitUntil(deferred);
    });
  });
}

function runtimeWaitUntil({ executionCtx }: Context<AppEnv>) {
  return executionCtx.waitUntil.bind(executionCtx);
}

/** The scope outlives promises that a handler gives to `c.executionCtx.waitUntil` by itself. */
function trackWaitUntil({ executionCtx }: Context<AppEnv>, scope: RequestScope): void {
  executionCtx.waitUntil = (promise) => scope.waitUntil(promise);
}
