import { configOf } from '../config/env';
import type { Config } from '../config/env';
import { log } from '../config/log';
import { createBreaker } from '../redis/breaker';
import type { Breaker } from '../redis/breaker';
import { createRedisClient } from '../redis/client';
import { createMeters } from '../metrics/meters';
import type { Meters } from '../metrics/meters';

export type { Meters, RefusalBudget } from '../metrics/meters';
import type { RedisClient } from '../redis/client';
import { createKeys } from '../redis/keys';
import type { Keys } from '../redis/keys';
import { createShards } from '../redis/shards';
import type { Shards } from '../redis/shards';
import { LocalDenials } from './blacklist/denials';
import { RevocationMemo } from './blacklist/memo';
import { SingleFlight } from './cache/singleFlight';
import { CacheMemory } from './cache/memory';
import type { Loaded } from './cache/singleFlight';
import { FreshSingleFlight } from './freshSingleFlight';
import { Lookups } from './lookups';
import { PROBE_MS } from './probe';
import type { DatabaseGone } from './probe';
import { createMailer } from './mail/createMailer';
import type { Mailer } from './mail/mailer';
import { createIsolateMemory } from './memory/isolateMemory';
import type { IsolateMemory } from './memory/isolateMemory';
import { createPasswordService } from './password.service';
import type { PasswordService } from './password.service';
import { BoundedMap } from '../util/boundedMap';
import { BlockList } from './rateLimit/blocks';
import { createIdempotencySecrets } from './idempotency/secrets';
import type { IdempotencySecrets } from './idempotency/secrets';
import { LocalLimiter } from './rateLimit/local';
import { OverrideMemory } from './rateLimit/overrides';
import type { ReadinessMemo } from './health.service';
import type { LastSeenMemo } from './lastSeen.service';
import { createAccessTokens } from './token/accessToken';
import type { AccessTokens } from './token/accessToken';
import { createRefreshTokens } from './token/refreshToken';
import type { RefreshTokens } from './token/refreshToken';

/**
 * State that outlives a request: settings, imported keys, counters and bounded maps of plain data. No request, connection
 * or stream: workerd forbids sharing those.
 */
export interface Isolate {
  config: Config;
  keys: Keys;
  client: RedisClient;
  breaker: Breaker;
  shards: Shards;
  access: AccessTokens;
  refresh: RefreshTokens;
  passwords: PasswordService;
  idempotencySecrets: IdempotencySecrets;
  /** `undefined` if mail is disabled in the settings. */
  mailer: Mailer | undefined;
  singleFlight: SingleFlight;
  /** Loads while Redis is away. */
  freshLoads: FreshSingleFlight<Loaded>;
  cacheMemory: CacheMemory;
  localLimiter: LocalLimiter;
  blocked: BlockList;
  overrides: OverrideMemory;
  revocationMemo: RevocationMemo;
  /** Limits reads from D1 in place of Redis. */
  lookups: Lookups;
  denials: LocalDenials;
  lastSeenMemo: LastSeenMemo;
  readiness: ReadinessMemo;
  /** Degraded requests since this isolate began: their number, by policy. */
  degradations: Map<string, number>;
  databaseGone: DatabaseGone;
  /** Redis's replies, for guards and reads that accept bounded staleness. */
  memory: IsolateMemory;
  /** This isolate's measurements, and those not yet reported. */
  metrics: Meters;
}

/** A lookup whose request died is forgotten this long after its deadline. */
const LOOKUP_SLACK_MS = 1_000;

export interface IsolateOptions {
  now?: () => number;
  /** Replaces the client described by the settings. */
  client?: RedisClient;
  /** The binding of `MAILER=cloudflare`. */
  email?: SendEmail | undefined;
}

export function createIsolate(config: Config, { now = Date.now, client, email }: IsolateOptions = {}): Isolate {
  const { url, token, prefix, breaker } = config.redis;
  const redis = client ?? createRedisClient({ url, token });
  const probeTimes = {
    probeMs: breaker.probeMs,
    probeMaxMs: breaker.probeMaxMs,
    probeLostMs: PROBE_MS + 15_000,
  };
  const metrics = createMeters({ intervalMs: config.metrics.intervalMs, nowMs: now() });
  return {
    config,
    keys: createKeys(prefix, activeSecret(config), config.ipv6PrefixBits),
    client: redis,
    breaker: createBreaker({
      ...breaker,
      ...probeTimes,
      now,
      onState: (state, former) => {
        metrics.instruments.breakerTransitions.count(state);
        if (former === 'closed') log('warn', 'redis.unavailable');
      },
    }),
    shards: createShards({ client: redis, ...probeTimes, now }),
    access: createAccessTokens(config, now),
    refresh: createRefreshTokens(config.refreshKeys, now),
    passwords: createPasswordService({ config, instruments: metrics.instruments }),
    idempotencySecrets: createIdempotencySecrets(config.refreshKeys),
    mailer: createMailer(config.mail, email),
    singleFlight: new SingleFlight(),
    freshLoads: new FreshSingleFlight(),
    cacheMemory: new CacheMemory(),
    localLimiter: new LocalLimiter(),
    blocked: new BlockList(),
    overrides: new OverrideMemory(),
    revocationMemo: new RevocationMemo(),
    lookups: new Lookups({
      max: config.databaseLookupsMax,
      lostAfterMs: Math.max(config.databaseDeadlineMs, config.cache.loaderDeadlineMs) + LOOKUP_SLACK_MS,
    }),
    denials: new LocalDenials(),
    lastSeenMemo: new BoundedMap(10_000),
    readiness: {},
    degradations: new Map(),
    databaseGone: { sinceMs: undefined },
    memory: createIsolateMemory(config),
    metrics,
  };
}

/** The HMAC key for personal parts of Redis keys. */
function activeSecret({ refreshKeys }: Config): string {
  return String(refreshKeys.keys.find(({ state }) => state === 'active')?.['k']);
}

const isolates = new WeakMap<Config, Isolate>();

/** This isolate's state for the settings of these bindings. */
export function isolateOf(bindings: Env): Isolate {
  const config = configOf(bindings);
  let isolate = isolates.get(config);
  if (isolate === undefined) {
    // Present if configured in wrangler.toml.
    const { EMAIL: email } = bindings as { EMAIL?: SendEmail };
    isolate = createIsolate(config, { email });
    isolates.set(config, isolate);
  }
  return isolate;
}
