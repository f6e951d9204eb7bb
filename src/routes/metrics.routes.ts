import { createHash, timingSafeEqual } from 'node:crypto';

import { Hono } from 'hono';
import type { Context, MiddlewareHandler } from 'hono';

import { configOf } from '../config/env';
import { factsOf, stating } from '../middlewares/contract';
import type { AppEnv } from '../middlewares/services.middleware';
import { MetricsService } from '../services/metrics.service';
import { adminOnly } from './admin/only';

const digestOf = (text: string) => createHash('sha256').update(text).digest();

/** Whether a request presents `METRICS_TOKEN`. Digests are compared in constant time, so that timing reveals nothing of it. */
function isScraper(c: Context<AppEnv>): boolean {
  const { token } = configOf(c.env).metrics;
  const [, given] = /^Bearer (\S+)$/i.exec(c.req.header('Authorization') ?? '') ?? [];
  return token !== undefined && given !== undefined && timingSafeEqual(digestOf(given), digestOf(token));
}

/** Admits `METRICS_TOKEN`, which needs no check in Redis, and administrators. */
function scrapers(): MiddlewareHandler<AppEnv> {
  const administrators = adminOnly();
  const handler: MiddlewareHandler<AppEnv> = async function scrapers(c, next) {
    // No handler of this route reads the variables that the check adds.
    return isScraper(c) ? next() : (administrators as unknown as MiddlewareHandler<AppEnv>)(c, next);
  };
  return stating(handler, factsOf(administrators));
}

/** Counters and histograms of all isolates, for Prometheus; while Redis is away, of this isolate alone. */
export const metricsRoutes = new Hono<AppEnv>().get('/metrics', scrapers(), async (c) => {
  const { text, contentType } = await MetricsService.prometheus();
  return c.body(text, 200, { 'Content-Type': contentType });
});
