import type { Context } from 'hono';
import { matchedRoutes } from 'hono/route';

import type { Meters } from '../services/isolate';
import type { AppEnv } from './appEnv';

const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** Counts a request, once its response is made. */
export function measure(c: Context<AppEnv>, { instruments, outbound }: Meters, startedMs: number): void {
  const { now, trips } = c.get('request');
  const nowMs = now();
  outbound.touch(nowMs);
  const { requests, blockingTrips } = instruments;
  const method = METHODS.has(c.req.method) ? c.req.method : '_OTHER';
  const [route, status] = [routeOf(c), String(c.res.status)];
  const durationMs = Math.max(0, nowMs - startedMs);
  requests.record(requests.series(method, route, status), durationMs);
  blockingTrips.record(blockingTrips.series(), trips.blocking);
  // Optional binding: only deployments with it in wrangler.toml have it.
  const { ANALYTICS: analytics } = c.env as { ANALYTICS?: AnalyticsEngineDataset };
  analytics?.writeDataPoint({
    indexes: [route],
    blobs: [method, route, status],
    doubles: [durationMs, trips.blocking],
  });
}

/** The pattern of the route that serves the request, also when a middleware responded first; `''` without a route. */
export function routeOf(c: Context<AppEnv>): string {
  const routes = matchedRoutes(c);
  const last = routes[c.req.routeIndex];
  if (last !== undefined && last.method !== 'ALL') return last.path;
  // A middleware responded.
  for (let at = c.req.routeIndex + 1; at < routes.length; at += 1) {
    const later = routes[at];
    if (later !== undefined && later.method !== 'ALL') return later.path;
  }
  return last === undefined || last.path.endsWith('*') ? '' : last.path;
}
