import type { Config } from '../config/env';
import { describeError, log } from '../config/log';
import { DatabaseUnavailable, createDatabase } from '../db/client';
import type { Database } from '../db/client';
import { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import type { Keys } from '../redis/keys';
import { createAuthService } from './auth.service';
import type { AuthService } from './auth.service';
import { createBlacklistService } from './blacklist.service';
import type { BlacklistService } from './blacklist.service';
import type { LocalDenials } from './blacklist/denials';
import { createCacheService } from './cache.service';
import type { CacheService } from './cache.service';
import { createEventService } from './event.service';
import type { EventService } from './event.service';
import { createHealthService } from './health.service';
import type { HealthService } from './health.service';
import type { Isolate } from './isolate';
import { createLastSeenService } from './lastSeen.service';
import type { LastSeenService } from './lastSeen.service';
import { createLockService } from './lock.service';
import type { LockService } from './lock.service';
import { createMailService } from './mail.service';
import type { MailService } from './mail.service';
import { createMailer } from './mail/mailer';
import { createOutboxService } from './outbox.service';
import type { OutboxService } from './outbox.service';
import { createRateLimitService } from './rateLimit.service';
import type { RateLimitService } from './rateLimit.service';
import { createRecoveryService } from './recovery.service';
import type { RecoveryService } from './recovery.service';
import { createRedisService } from './redis.service';
import type { RedisService } from './redis.service';
import { runWithServices } from './scope';
import type { ServiceMap } from './scope';
import { createSessionService } from './session.service';
import type { Device, SessionService } from './session.service';
import { createTokenService } from './token.service';
import type { TokenService } from './token.service';
import { createUserService } from './user.service';
import type { UserService } from './user.service';
import { createVerificationService } from './verification.service';
import type { VerificationService } from './verification.service';
import { createWarmService } from './warm.service';
import type { WarmService } from './warm.service';

/** What a walk through the key space may wait for Redis in all. */
const SLOW_MS = 25_000;

export interface RequestContext {
  isolate: Isolate;
  /** The D1 binding. */
  db: D1Database;
  /** The binding that `MAILER=cloudflare` sends through. */
  email?: SendEmail | undefined;
  waitUntil: (promise: Promise<unknown>) => void;
  /** Where the request comes from. */
  origin?: () => Device;
  now?: () => number;
  /** Uniform in [0, 1): for jitter and early refreshes. */
  random?: () => number;
}

/** One request's services and what stands behind them. */
export interface RequestServices {
  services: ServiceMap;
  batch: RedisBatch;
  /** What did not work as it should have, such as `limiter=local`: for the answer's header and the log. */
  degraded: ReadonlySet<string>;
  /** Called once the answer is made. */
  afterAnswer: (() => void)[];
  /** The request's clock. */
  nowMs: () => number;
}

/** The composition root: everything that the app can do, for one request. Services are made when first used. */
export function createServices(context: RequestContext): RequestServices {
  const { isolate, db, email, waitUntil, origin = nowhere, now = Date.now, random } = context;
  const { config, keys, client, breaker } = isolate;
  const degraded = new Set<string>();
  const note = (what: string) => {
    if (degraded.has(what)) return;
    degraded.add(what);
    isolate.degradations.set(what, (isolate.degradations.get(what) ?? 0) + 1);
  };
  const { callTimeoutMs, guardDeadlineMs, keyLocking } = config.redis;
  const batchOf = (deadlineMs: number, guardedBy = breaker) =>
    new RedisBatch({ client, breaker: guardedBy, waitUntil, deadlineMs, callTimeoutMs, keyLocking, now });
  const batch = batchOf(guardDeadlineMs);
  const database = createDatabase(db, { deadlineMs: config.databaseDeadlineMs });
  const { denials } = isolate;
  const parts: Parts = {
    isolate,
    common: { batch, keys, config, database, denials, waitUntil, origin, now, degraded: note },
    ...(random && { random }),
    batchWithin: batchOf,
    email,
    freshBatch: () => batchOf(callTimeoutMs),
    slowBatch: () => batchOf(SLOW_MS),
    background: (work) => apart({}, ({ batch: own }) => work(own)),
    apart,
  };
  const services = new RequestServiceMap(parts);

  /** The request's own deadline is over by then, and what it read is old. */
  async function apart<T>(changes: { refreshWithinMs?: number }, work: (own: OwnRequest) => Promise<T>): Promise<T> {
    const own = { batch: batchOf(callTimeoutMs), degraded: new Set<string>() };
    const noteBoth = (what: string) => {
      own.degraded.add(what);
      note(what);
    };
    const common = { ...parts.common, batch: own.batch, degraded: noteBoth };
    try {
      return await runWithServices(new RequestServiceMap({ ...parts, ...changes, common }), () => work(own));
    } finally {
      await own.batch.settle();
    }
  }

  const due = breaker.claimProbe();
  if (due !== undefined) waitUntil(probe(due, breaker, batchOf(callTimeoutMs * 2, UNGUARDED), services.outbox));
  return { services, batch, degraded, afterAnswer: [], nowMs: now };
}

const nowhere = (): Device => ({ device: '', address: '' });

/** What stands behind work that is done apart from its request. */
type OwnRequest = Pick<RequestServices, 'batch' | 'degraded'>;

interface Parts {
  isolate: Isolate;
  common: {
    batch: RedisBatch;
    keys: Keys;
    config: Config;
    database: Database;
    denials: LocalDenials;
    waitUntil: (promise: Promise<unknown>) => void;
    origin: () => Device;
    now: () => number;
    degraded: (what: string) => void;
  };
  random?: () => number;
  batchWithin: (deadlineMs: number) => RedisBatch;
  email: SendEmail | undefined;
  freshBatch: () => RedisBatch;
  slowBatch: () => RedisBatch;
  /** Runs work that outlives the request, with services and a batch of its own. */
  background: <T>(work: (batch: RedisBatch) => Promise<T>) => Promise<T>;
  /** The same, with what of it was degraded; with `refreshWithinMs` it loads anew what will soon be stale. */
  apart: <T>(changes: { refreshWithinMs?: number }, work: (own: OwnRequest) => Promise<T>) => Promise<T>;
  refreshWithinMs?: number;
}

/** Each service is built on first use and kept: most requests need few of them. */
class RequestServiceMap implements ServiceMap {
  readonly #parts: Parts;
  #redis?: RedisService;
  #cache?: CacheService;
  #rateLimit?: RateLimitService;
  #blacklist?: BlacklistService;
  #token?: TokenService;
  #outbox?: OutboxService;
  #event?: EventService;
  #lastSeen?: LastSeenService;
  #lock?: LockService;
  #session?: SessionService;
  #user?: UserService;
  #auth?: AuthService;
  #mail?: MailService;
  #recovery?: RecoveryService;
  #verification?: VerificationService;
  #health?: HealthService;
  #warm?: WarmService;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  get redis() {
    return (this.#redis ??= createRedisService({ ...this.#parts.common, slowBatch: this.#parts.slowBatch }));
  }

  get cache() {
    const { common, isolate, background, freshBatch, slowBatch, random, refreshWithinMs } = this.#parts;
    return (this.#cache ??= createCacheService({
      ...common,
      ...(random && { random }),
      ...(refreshWithinMs !== undefined && { refreshWithinMs }),
      flights: isolate.flights,
      memory: isolate.cacheMemory,
      outbox: () => this.outbox,
      settings: common.config.cache,
      freshBatch,
      slowBatch,
      background,
      locks: () => this.lock,
    }));
  }

  get rateLimit() {
    const { common, isolate } = this.#parts;
    return (this.#rateLimit ??= createRateLimitService({
      ...common,
      local: isolate.localLimiter,
      blocked: isolate.blocked,
    }));
  }

  get blacklist() {
    const { common, isolate } = this.#parts;
    const outbox = () => this.outbox;
    return (this.#blacklist ??= createBlacklistService({ ...common, outbox, memo: isolate.revocationMemo }));
  }

  get token() {
    const { access, refresh, config } = this.#parts.isolate;
    const { accessTtlSeconds } = config.tokens;
    const { now } = this.#parts.common;
    return (this.#token ??= createTokenService({ access, refresh, accessTtlSeconds, now }));
  }

  get outbox() {
    const { common, isolate, freshBatch } = this.#parts;
    // Whoever has not used the cache must not join a load that began before either.
    const forgetReads = (redisKeys: readonly string[]) =>
      this.#cache === undefined ? isolate.flights.separate(redisKeys) : this.#cache.forgetReads(redisKeys);
    return (this.#outbox ??= createOutboxService({ ...common, breaker: isolate.breaker, freshBatch, forgetReads }));
  }

  get event() {
    return (this.#event ??= createEventService(this.#parts.common));
  }

  get lastSeen() {
    const { common, isolate } = this.#parts;
    return (this.#lastSeen ??= createLastSeenService({ ...common, touched: isolate.touched }));
  }

  get lock() {
    const { common, batchWithin } = this.#parts;
    const { authDeadlineMs: deadlineMs } = common.config.redis;
    return (this.#lock ??= createLockService({ ...common, batchWithin, deadlineMs }));
  }

  get session() {
    const { common } = this.#parts;
    return (this.#session ??= createSessionService({ ...common, outbox: this.outbox, event: this.event }));
  }

  get user() {
    const { common } = this.#parts;
    const { cache } = this;
    const outbox = () => this.outbox;
    const event = () => this.event;
    return (this.#user ??= createUserService({ ...common, cache, outbox, event, settings: common.config.cache }));
  }

  get auth() {
    const { session, token, outbox, event, password: passwords } = this;
    const blacklist = () => this.blacklist;
    return (this.#auth ??= createAuthService({
      ...this.#parts.common,
      session,
      token,
      passwords,
      outbox,
      blacklist,
      event,
    }));
  }

  get password() {
    return this.#parts.isolate.passwords;
  }

  get mail() {
    const { common, email } = this.#parts;
    return (this.#mail ??= createMailService({ ...common, mailer: createMailer(common.config.mail, email) }));
  }

  get recovery() {
    const { mail, outbox, event, password: passwords } = this;
    return (this.#recovery ??= createRecoveryService({ ...this.#parts.common, mail, outbox, event, passwords }));
  }

  get verification() {
    const { mail, outbox, event } = this;
    return (this.#verification ??= createVerificationService({ ...this.#parts.common, mail, outbox, event }));
  }

  get warm() {
    const { common, freshBatch, apart } = this.#parts;
    return (this.#warm ??= createWarmService({ ...common, lock: this.lock, freshBatch, apart }));
  }

  get health() {
    const { common, isolate } = this.#parts;
    return (this.#health ??= createHealthService({
      ...common,
      breaker: isolate.breaker,
      degradations: isolate.degradations,
      memo: isolate.readiness,
    }));
  }
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
