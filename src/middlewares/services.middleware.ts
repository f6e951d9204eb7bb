import type { Context } from 'hono';
import { createMiddleware } from 'hono/factory';

import { bindingOf, runInScope } from '../services/runInScope';
import { hasDue } from '../services/guardMemory.service';
import { isolateOf } from '../services/isolate';
import type { Isolate } from '../services/isolate';
import type { RequestScope } from '../services/scope';
import type { AppEnv } from './appEnv';
import { deviceOf } from './clientDevice';
import { measure } from './measured';
import { logRefusal } from './refusalLog';
import { nameTrace, tracingOf } from './trace';

export type { AppEnv } from './appEnv';

export interface ServicesOptions {
  /** Replaces the isolate's own state, for tests. */
  isolate?: Isolate;
  now?: () => number;
}

/** Opens a request's scope, runs the request in it, and sends the deferred writes after the response. */
export function services({ isolate, now = Date.now }: ServicesOptions = {}) {
  return createMiddleware<AppEnv>(function services(c, next): Promise<void> {
    const startedMs = now();
    const used = isolate ?? isolateOf(c.env);
    const context = {
      isolate: used,
      requestId: c.get('requestId'),
      db: bindingOf(c.env),
      waitUntil: runtimeWaitUntil(c),
      origin: () => deviceOf(c),
      tracing: tracingOf(c),
      now,
    };
    return runInScope(context, async (scope) => {
      c.set('request', scope);
      trackWaitUntil(c, scope);
      await next();
      for (const settle of scope.onResponse) settle();
      measure(c, used.metrics, startedMs);
      if (scope.inSpan !== undefined) nameTrace(c);
      logRefusal(c, used.metrics);
      scope.services.metrics.report();
      if (scope.degraded.size > 0) c.res.headers.set('Gatehouse-Degraded', [...scope.degraded].join(', '));
      const deferred = scope.settle();
      if (deferred !== undefined) scope.waitUntil(deferred);
      if (hasDue(used.memory, now())) scope.services.guardMemory.refresh();
    });
  });
}

function runtimeWaitUntil({ executionCtx }: Context<AppEnv>) {
  return executionCtx.waitUntil.bind(executionCtx);
}

/** Keeps the scope open until promises that a handler gives to `c.executionCtx.waitUntil` have settled. */
function trackWaitUntil({ executionCtx }: Context<AppEnv>, scope: RequestScope): void {
  executionCtx.waitUntil = scope.looseWaitUntil();
}
