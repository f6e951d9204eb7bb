import { describeError, log } from '../config/log';
import { DatabaseUnavailable, createDatabase } from '../db/client';
import { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import { createAuthService } from './auth.service';
import { createBlacklistService } from './blacklist.service';
import { createCacheService } from './cache.service';
import { createHealthService } from './health.service';
import type { Isolate } from './isolate';
import { createOutboxService } from './outbox.service';
import type { OutboxService } from './outbox.service';
import { createRateLimitService } from './rateLimit.service';
import { createRedisService } from './redis.service';
import type { ServiceMap } from './scope';
import { createSessionService } from './session.service';
import { createTokenService } from './token.service';
import { createUserService } from './user.service';

export interface RequestContext {
  isolate: Isolate;
  /** The D1 binding. */
  db: D1Database;
  waitUntil: (promise: Promise<unknown>) => void;
  now?: () => number;
}

/** One request's services and what stands behind them. */
export interface RequestServices {
  services: ServiceMap;
  batch: RedisBatch;
  /** What did not work as it should have, such as `limiter=local`: for the answer's header and the log. */
  degraded: ReadonlySet<string>;
}

/** The composition root: everything that the app can do, for one request. Services are made when first used. */
export function createServices({ isolate, db, waitUntil, now = Date.now }: RequestContext): RequestServices {
  const { config, keys, client, breaker } = isolate;
  const degraded = new Set<string>();
  const note = (what: string) => void degraded.add(what);
  const { callTimeoutMs, guardDeadlineMs } = config.redis;
  const batchOf = (deadlineMs: number, guardedBy = breaker) =>
    new RedisBatch({ client, breaker: guardedBy, waitUntil, deadlineMs, now });
  const batch = batchOf(guardDeadlineMs);
  const database = createDatabase(db, { deadlineMs: config.databaseDeadlineMs });
  const { denials } = isolate;
  const common = { batch, keys, config, database, denials, waitUntil, now, degraded: note };

  const services: ServiceMap = lazy<ServiceMap>({
    redis: () => createRedisService(common),
    cache: () => createCacheService({ ...common, flights: isolate.flights, settings: config.cache }),
    rateLimit: () => createRateLimitService({ ...common, local: isolate.localLimiter, blocked: isolate.blocked }),
    blacklist: () => createBlacklistService({ ...common, memo: isolate.revocationMemo }),
    token: () => createTokenService({ ...isolate, accessTtlSeconds: config.tokens.accessTtlSeconds }),
    outbox: () => createOutboxService({ ...common, breaker, freshBatch: () => batchOf(callTimeoutMs) }),
    session: () => createSessionService({ ...common, outbox: services.outbox, touched: isolate.touched }),
    user: () =>
      createUserService({ ...common, cache: services.cache, outbox: services.outbox, settings: config.cache }),
    auth: () =>
      createAuthService({ ...common, session: services.session, token: services.token, outbox: services.outbox }),
    health: () => createHealthService({ ...common, breaker }),
  });

  const due = breaker.claimProbe();
  if (due !== undefined) waitUntil(probe(due, breaker, batchOf(callTimeoutMs * 2, UNGUARDED), services.outbox));
  return { services, batch, degraded };
}

/** Each service is built on first use and kept. */
function lazy<T extends object>(factories: { [K in keyof T]: () => T[K] }): T {
  const made = {} as T;
  for (const name of Object.keys(factories) as (keyof T)[]) {
    let value: T[typeof name] | undefined;
    Object.defineProperty(made, name, { enumerable: true, get: () => (value ??= factories[name]()) });
  }
  return made;
}

/** Always closed, scores nothing: for the one caller that finds out whether Redis is back. */
const UNGUARDED: Breaker = {
  state: 'closed',
  ticket: () => 0,
  record: () => undefined,
  claimProbe: () => undefined,
  probed: () => undefined,
};

/** Asks Redis whether it is there, and tells it what it missed before anybody relies on it again. */
async function probe(number: number, breaker: Breaker, batch: RedisBatch, outbox: OutboxService): Promise<void> {
  try {
    await batch.send('PING');
    await outbox.deliverPending(batch);
  } catch (error) {
    // With the database away as well, an open breaker would leave nobody to ask. What this isolate has revoked it
    // refuses by itself; the rest is delivered once the database is back.
    if (!(error instanceof DatabaseUnavailable)) {
      breaker.probed(number, false);
      log('warn', 'redis.probe_failed', describeError(error));
      return;
    }
    log('warn', 'redis.available_undelivered', describeError(error));
  }
  breaker.probed(number, true);
  log('info', 'redis.available');
}
