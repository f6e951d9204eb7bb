import { createMiddleware } from 'hono/factory';

import { configOf } from '../config/env';
import { createServices } from '../services';
import type { RequestServices } from '../services';
import { isolateOf } from '../services/isolate';
import type { Isolate } from '../services/isolate';
import { runWithServices } from '../services/scope';
import { deviceOf } from './clientDevice';

/** What every handler finds in its context. */
export interface AppEnv {
  Bindings: Env;
  Variables: { requestId: string; request: RequestServices };
}

export interface ServicesOptions {
  /** In place of the isolate's own, for tests. */
  isolate?: Isolate;
  now?: () => number;
}

/** Composes a request's services, runs the request with them, and sends what was left for after the answer. */
export function services({ isolate, now = Date.now }: ServicesOptions = {}) {
  return createMiddleware<AppEnv>(async function services(c, next) {
    const waitUntil = (promise: Promise<unknown>) => c.executionCtx.waitUntil(promise);
    const request = createServices({
      isolate: isolate ?? isolateOf(configOf(c.env)),
      db: c.env.DB,
      // There for those who have it in their wrangler.toml.
      email: (c.env as { EMAIL?: SendEmail }).EMAIL,
      waitUntil,
      origin: () => deviceOf(c),
      now,
    });
    c.set('request', request);
    const { batch, degraded, afterAnswer } = request;
    await runWithServices(request.services, async () => {
      await next();
      for (const settle of afterAnswer) settle();
    });
    if (degraded.size > 0) c.res.headers.set('Gatehouse-Degraded', [...degraded].join(', '));
    const deferred = batch.settle();
    if (deferred !== undefined) waitUntil(deferred);
  });
}
