import type { Config } from '../config/env';
import type { Limit } from '../services/rateLimit.service';
import { factsOf } from './contract';
import type { Counted } from './contract';
import { placeName } from './limitRound';

/** A policy with all places where it is mounted. */
export interface MountedLimiter {
  policy: string;
  counts: Counted;
  algorithm: Limit['algorithm'];
  limits: readonly Limit[] | undefined;
  /** Routes, such as `GET /v1/users/:id`. */
  places: string[];
}

export interface ServedRoute {
  method: string;
  path: string;
  handler: object;
}

/** Every limiter of an app's routes, by policy, in the order of the routes. */
export function mountedLimiters(routes: readonly ServedRoute[], config: Config): Map<string, MountedLimiter> {
  const mounted = new Map<string, MountedLimiter>();
  const earlier = new Map<string, number>();
  for (const { method, path, handler } of routes) {
    const route = `${method} ${path}`;
    const before = earlier.get(route) ?? 0;
    earlier.set(route, before + 1);
    const limiters = (factsOf(handler).checks ?? []).flatMap(({ limiter }) => limiter ?? []);
    for (const [position, { name, counts, algorithm, limits }] of limiters.entries()) {
      const policy = name ?? placeName({ method, path }, before, position);
      const known = mounted.get(policy);
      if (known === undefined) {
        mounted.set(policy, { policy, counts, algorithm, limits: limits(config), places: [route] });
      } else if (!known.places.includes(route)) known.places.push(route);
    }
  }
  return mounted;
}
