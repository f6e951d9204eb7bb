import { createDatabase } from '../db/client';
import { createRedisBatch } from '../redis/batch';
import type { RedisBatch, RedisBatchOptions } from '../redis/batch';
import { ungated } from '../redis/shards';
import { createAuthService } from './auth.service';
import { createBlacklistService } from './blacklist.service';
import { createCacheService } from './cache.service';
import { endManualFills } from './cache/intents';
import { currentRequest } from './current';
import { createEventService } from './event.service';
import { createHealthService } from './health.service';
import type { Isolate } from './isolate';
import { createLastSeenService } from './lastSeen.service';
import { createLockService } from './lock.service';
import { createMailService } from './mail.service';
import { createOutboxService } from './outbox.service';
import { UNGUARDED, look, probe } from './probe';
import { createRateLimitService } from './rateLimit.service';
import { createRecoveryService } from './recovery.service';
import { createRedisService } from './redis.service';
import { RequestScope, currentScope } from './scope';
import type { ServiceMap } from './scope';
import type { Device } from './session/device';
import { createSessionService } from './session.service';
import { probeShard } from './shardProbe';
import { createTokenService } from './token.service';
import { createUserService } from './user.service';
import { createVerificationService } from './verification.service';
import { createWarmService } from './warm.service';

export interface RequestContext {
  isolate: Isolate;
  /** The D1 binding. */
  db: D1Database;
  waitUntil: (promise: Promise<unknown>) => void;
  /** Where the request comes from. */
  origin?: () => Device;
  /** Milliseconds since the epoch. */
  now?: () => number;
  /** Uniform in [0, 1): for jitter and early refreshes. */
  random?: () => number;
}

/**
 * Runs the work of one request, or of one scheduled run: the static calls (`RedisService.get(…)` and the like) work in it,
 * and in everything that it gives to `waitUntil`. A probe of Redis that is due begins beside it.
 */
export function runInScope<T>(context: RequestContext, work: (scope: RequestScope) => Promise<T>): Promise<T> {
  const { isolate, db, waitUntil, origin = nowhere, now = Date.now, random = Math.random } = context;
  const { config, degradations } = isolate;
  const scope: RequestScope = new RequestScope({
    services: servicesOf(isolate),
    batch: batchOf(isolate, config.redis.guardDeadlineMs, { now, waitUntil: (promise) => scope.waitUntil(promise) }),
    database: createDatabase(db, { deadlineMs: config.databaseDeadlineMs }),
    now,
    random,
    waitUntil,
    origin,
    onDegraded: (what) => degradations.set(what, (degradations.get(what) ?? 0) + 1),
  });
  return scope.run(() => {
    lookAfterRedis(isolate, scope);
    return work(scope);
  });
}

const nowhere = (): Device => ({ device: '', address: '' });

/** What a walk through the key space may wait for Redis in all. */
const SLOW_MS = 25_000;

function batchOf(
  { config, client, breaker, shards }: Isolate,
  deadlineMs: number,
  options: Pick<RedisBatchOptions, 'now' | 'waitUntil'> & Partial<Pick<RedisBatchOptions, 'breaker' | 'shards'>>,
): RedisBatch {
  const { callTimeoutMs, keyLocking } = config.redis;
  return createRedisBatch({ client, breaker, shards, deadlineMs, callTimeoutMs, keyLocking, ...options });
}

/** Begins, beside the request, what is due to find out the state of Redis. */
function lookAfterRedis(isolate: Isolate, scope: RequestScope): void {
  const { breaker, shards, keys } = isolate;
  if (breaker.state !== 'closed') {
    scope.waitUntil(probeIfDue(isolate, scope));
    return;
  }
  const { outbox } = scope.services;
  if (breaker.claimLook()) scope.waitUntil(look({ breaker, outbox }));
  for (let shard = shards.claimProbe(); shard !== undefined; shard = shards.claimProbe()) {
    scope.waitUntil(probeShard(shard, { batch: probeBatch(isolate, scope), keys, outbox }));
  }
}

/** Asks whether Redis is back, in one request of the isolate at a time. */
async function probeIfDue(isolate: Isolate, scope: RequestScope): Promise<void> {
  const { breaker, databaseGone } = isolate;
  const due = breaker.claimProbe();
  if (due === undefined) return;
  const batch = probeBatch(isolate, scope);
  await probe(due, { breaker, batch, outbox: scope.services.outbox, databaseGone, now: scope.now });
}

function probeBatch(isolate: Isolate, scope: RequestScope): RedisBatch {
  const waitUntil = (promise: Promise<unknown>) => scope.waitUntil(promise);
  const deadlineMs = 2 * isolate.config.redis.callTimeoutMs;
  return batchOf(isolate, deadlineMs, {
    now: scope.now,
    waitUntil,
    breaker: UNGUARDED,
    shards: ungated(isolate.shards),
  });
}

const services = new WeakMap<Isolate, ServiceMap>();

function servicesOf(isolate: Isolate): ServiceMap {
  let made = services.get(isolate);
  if (made === undefined) {
    made = createServices(isolate);
    services.set(isolate, made);
  }
  return made;
}

/** The composition root: everything that the app can do, made once an isolate, in the order of dependencies. */
function createServices(isolate: Isolate): ServiceMap {
  const { access, breaker, config, denials, flights, keys, passwords: password } = isolate;
  const { callTimeoutMs, authDeadlineMs } = config.redis;
  /** A batch with a deadline of its own, for the current request. */
  const batchWithin = (deadlineMs: number): RedisBatch => {
    const scope = currentScope();
    return batchOf(isolate, deadlineMs, { now: scope.now, waitUntil: (promise) => scope.waitUntil(promise) });
  };
  const freshBatch = () => batchWithin(callTimeoutMs);
  const slowBatch = () => batchWithin(SLOW_MS);
  const settings = config.cache;
  const common = { ...currentRequest, keys, config, denials, freshBatch, slowBatch, batchWithin };

  const reads = () => currentScope().cacheReads;
  const manualFills = () => currentScope().manualFills;
  const accounts = () => currentScope().accounts;
  const forgetReads = (redisKeys?: readonly string[]) => {
    reads().clear();
    accounts().forget();
    endManualFills(manualFills(), redisKeys);
    flights.separate(redisKeys);
  };

  const redis = createRedisService(common);
  const rateLimit = createRateLimitService({ ...common, local: isolate.localLimiter, blocked: isolate.blocked });
  const event = createEventService(common);
  const lastSeen = createLastSeenService({ ...common, touched: isolate.touched });
  const lock = createLockService({ ...common, deadlineMs: authDeadlineMs });
  const mail = createMailService({ ...common, mailer: isolate.mailer });
  const token = createTokenService({
    access,
    refresh: isolate.refresh,
    accessTtlSeconds: config.tokens.accessTtlSeconds,
    now: common.now,
  });
  const outbox = createOutboxService({
    ...common,
    breaker,
    forgetReads,
    directBatch: () => probeBatch(isolate, currentScope()),
    probe: () => probeIfDue(isolate, currentScope()),
  });
  const blacklist = createBlacklistService({
    ...common,
    outbox,
    memo: isolate.revocationMemo,
    lookups: isolate.lookups,
    accounts,
  });
  const cache = createCacheService({
    ...common,
    settings,
    flights,
    memory: isolate.cacheMemory,
    freshLoads: isolate.freshLoads,
    lookups: isolate.lookups,
    nextOrder: () => accounts().nextOrder(),
    outbox,
    locks: lock,
    background: (work) => apart({}, ({ batch }) => work(batch)),
    refreshWithinMs: () => currentScope().refreshWithinMs,
    reads,
    manualFills,
    forgetReads,
  });
  const session = createSessionService({ ...common, outbox, event });
  const user = createUserService({ ...common, cache, outbox, event, settings, accounts });
  const auth = createAuthService({ ...common, session, token, passwords: password, outbox, blacklist, event });
  const recovery = createRecoveryService({ ...common, mail, outbox, event, passwords: password });
  const verification = createVerificationService({ ...common, mail, outbox, event });
  const warm = createWarmService({ ...common, lock, apart });
  const { degradations, readiness: memo } = isolate;
  const health = createHealthService({ ...common, breaker, shards: isolate.shards, degradations, memo });

  /** Runs work that outlives the request, or has a deadline of its own, in a scope of its own. */
  async function apart<T>(
    { refreshWithinMs }: { refreshWithinMs?: number },
    work: (own: RequestScope) => Promise<T>,
  ): Promise<T> {
    const parent = currentScope();
    const own: RequestScope = new RequestScope({
      services: parent.services,
      batch: batchOf(isolate, callTimeoutMs, { now: parent.now, waitUntil: (promise) => own.waitUntil(promise) }),
      database: parent.database,
      now: parent.now,
      random: parent.random,
      origin: parent.origin,
      waitUntil: (promise) => parent.waitUntil(promise),
      onDegraded: (what) => parent.degrade(what),
      ...(refreshWithinMs !== undefined && { refreshWithinMs }),
    });
    return own.run(async () => {
      try {
        return await work(own);
      } finally {
        await own.batch.settle();
      }
    });
  }

  return {
    redis,
    cache,
    rateLimit,
    blacklist,
    token,
    outbox,
    event,
    lastSeen,
    lock,
    session,
    user,
    auth,
    password,
    mail,
    recovery,
    verification,
    warm,
    health,
  };
}
