// The namespace import, because `{ z }` bundles every locale of zod, half the Worker's size.
import * as z from 'zod';

import { AppError } from '../errors';
import { integer, isDeveloperMachine, isStrong, keySet, limit, line, linkTemplate, list, rangeUrl } from './fields';
import { shareSecret } from './keySet';

export type { LimitSettings, ScryptParameters } from './fields';
export type { KeySetConfig } from './keySet';

/** Turns the bindings' strings into settings. Every default of the product's policy is here. */
export const schema = z
  .object({
    ISSUER: z.url(),
    AUDIENCE: z.string().min(1),
    SIGNING_KEYS: keySet('signing'),
    REFRESH_KEYS: keySet('refresh'),
    PEPPER_KEYS: keySet('pepper').optional(),
    UPSTASH_REDIS_REST_URL: z.url({ protocol: /^https?$/ }),
    UPSTASH_REDIS_REST_TOKEN: z.string().min(1),
    KEY_PREFIX: z
      .string()
      .regex(/^[A-Za-z0-9_-]{1,32}$/)
      .default('app'),
    REDIS_KEY_LOCKING: z.enum(['true', 'false']).optional(),
    READ_ONLY: z.enum(['true', 'false']).default('false'),
    CORS_ORIGINS: list,
    IPV6_PREFIX_BITS: integer(64, 16, 128),
    BODY_LIMIT_BYTES: integer(65_536, 1_024, 10_485_760),

    ACCESS_TOKEN_TTL_SECONDS: integer(900, 30, 86_400),
    REFRESH_IDLE_TTL_SECONDS: integer(7 * 86_400, 60),
    REFRESH_ABSOLUTE_TTL_SECONDS: integer(30 * 86_400, 60, 366 * 86_400),
    REFRESH_GRACE_SECONDS: integer(30, 0, 3_600),
    SESSIONS_PER_USER: integer(10, 1, 100),
    FRESH_SECONDS: integer(600, 30, 86_400),

    SCRYPT_LN: integer(15, 1, 17),
    SCRYPT_R: integer(8, 8, 64),
    SCRYPT_P: integer(3, 1, 16),
    HASH_QUEUE_MAX: integer(20, 0, 1_000),
    PASSWORD_FAILURES_MAX: integer(100, 10, 100),
    BREACHED_PASSWORDS_URL: rangeUrl,
    BREACHED_PASSWORDS_DEADLINE_MS: integer(1_000, 50, 10_000),

    USER_CACHE_TTL_SECONDS: integer(600),
    LIST_CACHE_TTL_SECONDS: integer(300),
    NEGATIVE_CACHE_TTL_SECONDS: integer(30, 1, 3_600),
    STALE_IF_ERROR_SECONDS: integer(3_600, 0, 7 * 86_400),
    LOADER_DEADLINE_MS: integer(10_000, 100, 30_000),
    TOMBSTONE_SECONDS: integer(60, 1, 3_600),

    LIMIT_OVERRIDES_SECONDS: integer(20, 0, 30),
    LIMIT_LOGIN: limit('5/15m'),
    LIMIT_LOGIN_ADDRESS: limit('50/15m'),
    LIMIT_REGISTER: limit('3/1m'),
    LIMIT_REGISTER_DAY: limit('30/1d'),
    LIMIT_MAILBOX: limit('5/1d'),
    LIMIT_API: limit('100/15m'),
    LIMIT_ADMIN: limit('3000/15m'),
    LIMIT_ACCOUNT: limit('60/15m'),
    LIMIT_REFRESH: limit('30/15m'),
    LIMIT_RECOVERY: limit('10/15m'),
    LIMIT_RECOVERY_ACCOUNT: limit('3/1h'),
    LIMIT_VERIFICATION: limit('3/1h'),
    LIMIT_ONE_TIME_TOKEN: limit('30/15m'),

    MAILER: z.enum(['none', 'cloudflare', 'console']).default('none'),
    MAIL_FROM: z.email({ pattern: z.regexes.html5Email }).optional(),
    APP_NAME: line.default('Gatehouse'),
    RECOVERY_URL: linkTemplate,
    VERIFICATION_URL: linkTemplate,
    EMAIL_CHANGE_URL: linkTemplate,
    EMAIL_UNDO_URL: linkTemplate,
    DELETION_URL: linkTemplate,
    RECOVERY_TTL_SECONDS: integer(1_800, 60, 86_400),
    VERIFICATION_TTL_SECONDS: integer(86_400, 60, 30 * 86_400),
    EMAIL_CHANGE_TTL_SECONDS: integer(3_600, 60, 86_400),
    EMAIL_UNDO_TTL_SECONDS: integer(7 * 86_400, 3_600, 30 * 86_400),
    DELETION_TTL_SECONDS: integer(3_600, 60, 86_400),
    UNVERIFIED_TTL_SECONDS: integer(0, 0, 366 * 86_400),

    REDIS_GUARD_DEADLINE_MS: integer(200, 1, 10_000),
    REDIS_AUTH_DEADLINE_MS: integer(1_000, 1, 10_000),
    REDIS_CALL_TIMEOUT_MS: integer(2_000, 1, 30_000),
    DATABASE_DEADLINE_MS: integer(2_000, 1, 30_000),
    DATABASE_LOOKUPS_MAX: integer(64, 1, 10_000),
    READS_WITHIN_MS: integer(0, 0, 60_000),

    METRICS_INTERVAL_MS: integer(10_000, 0, 60_000),
    METRICS_TOKEN: z.string().min(16, 'must have at least 16 characters').optional(),

    BREAKER_WINDOW_MS: integer(10_000, 1_000),
    BREAKER_MIN_CALLS: integer(10),
    BREAKER_FAILURE_PERCENT: integer(50, 1, 100),
    BREAKER_PROBE_MS: integer(1_000, 10),
    BREAKER_PROBE_MAX_MS: integer(30_000, 10),
  })
  .refine((env) => env.PEPPER_KEYS === undefined || !shareSecret(env.REFRESH_KEYS, env.PEPPER_KEYS), {
    path: ['PEPPER_KEYS'],
    message: 'has a key of REFRESH_KEYS: each purpose needs keys of its own',
  })
  .refine((env) => env.LOADER_DEADLINE_MS < env.TOMBSTONE_SECONDS * 1_000, {
    // Otherwise a late fill could arrive after the tombstone has expired, and would not be refused.
    path: ['TOMBSTONE_SECONDS'],
    message: 'must be longer than LOADER_DEADLINE_MS',
  })
  .refine(
    (env) => isDeveloperMachine(env.ISSUER) || isStrong({ ln: env.SCRYPT_LN, r: env.SCRYPT_R, p: env.SCRYPT_P }),
    {
      // On a developer's machine a cheap hash is allowed.
      path: ['SCRYPT_LN'],
      message:
        'with SCRYPT_R and SCRYPT_P the hash is too weak or too expensive: take 13/8/10, 14/8/5, 15/8/3, 16/8/2 or, ' +
        'up to 2^LN·R·P = 2^20, more',
    },
  )
  .refine((env) => env.MAILER !== 'console' || isDeveloperMachine(env.ISSUER), {
    // This mailer writes tokens to the log.
    path: ['MAILER'],
    message: 'console is for developing: ISSUER must be on localhost, 127.0.0.1 or under .test',
  })
  .refine(
    ({ UNVERIFIED_TTL_SECONDS: ttl, MAILER, VERIFICATION_TTL_SECONDS }) =>
      ttl === 0 || (MAILER !== 'none' && ttl >= VERIFICATION_TTL_SECONDS),
    {
      // Otherwise accounts would be deleted that had no way to verify, or whose link is still valid.
      path: ['UNVERIFIED_TTL_SECONDS'],
      message: 'needs a MAILER, and must not be shorter than VERIFICATION_TTL_SECONDS',
    },
  )
  .refine((env) => env.MAILER !== 'cloudflare' || env.MAIL_FROM !== undefined, {
    path: ['MAIL_FROM'],
    message: 'is needed by MAILER=cloudflare',
  });

/** The app's settings, checked. Durations carry their unit in the name. */
export type Config = ReturnType<typeof shape>;

/**
 * Checks the bindings.
 *
 * @throws {AppError} `CONFIG_INVALID`, whose detail names every setting that is missing or wrong, never a value
 */
export function parseConfig(bindings: object): Config {
  const result = schema.safeParse(bindings);
  const missing: string[] = 'DB' in bindings || 'HYPERDRIVE' in bindings ? [] : ['DB (a D1 database)'];
  const wrong: string[] = [];
  if ('MAILER' in bindings && bindings.MAILER === 'cloudflare' && !('EMAIL' in bindings)) {
    missing.push('EMAIL (a send_email binding)');
  }
  if (!result.success) {
    for (const issue of result.error.issues) {
      const name = String(issue.path[0]);
      if (!(name in bindings)) missing.push(name);
      else wrong.push(`${name} (${issue.message})`);
    }
  }
  if (!result.success || missing.length > 0) {
    const parts = [
      missing.length > 0 ? `missing: ${missing.join(', ')}` : '',
      wrong.length > 0 ? `wrong: ${wrong.join(', ')}` : '',
    ];
    throw new AppError('CONFIG_INVALID', { detail: `Configuration ${parts.filter(Boolean).join('; ')}` });
  }
  return shape(result.data, bindings);
}

/** The settings as the code uses them, by topic. */
function shape(env: z.infer<typeof schema>, bindings: object) {
  return {
    issuer: env.ISSUER,
    audience: env.AUDIENCE,
    signingKeys: env.SIGNING_KEYS,
    refreshKeys: env.REFRESH_KEYS,
    redis: {
      url: env.UPSTASH_REDIS_REST_URL,
      token: env.UPSTASH_REDIS_REST_TOKEN,
      prefix: env.KEY_PREFIX,
      /** Scripts declare that they access only their KEYS, so that Upstash does not lock the whole database for them. */
      keyLocking:
        env.REDIS_KEY_LOCKING === undefined
          ? new URL(env.UPSTASH_REDIS_REST_URL).hostname.endsWith('.upstash.io')
          : env.REDIS_KEY_LOCKING === 'true',
      /** How long one request may wait for Redis in all: before its handler, and on an auth route. */
      guardDeadlineMs: env.REDIS_GUARD_DEADLINE_MS,
      authDeadlineMs: env.REDIS_AUTH_DEADLINE_MS,
      /** A call to Redis that no request waits for is aborted after this time. */
      callTimeoutMs: env.REDIS_CALL_TIMEOUT_MS,
      breaker: {
        windowMs: env.BREAKER_WINDOW_MS,
        minCalls: env.BREAKER_MIN_CALLS,
        failureRatio: env.BREAKER_FAILURE_PERCENT / 100,
        probeMs: env.BREAKER_PROBE_MS,
        probeMaxMs: env.BREAKER_PROBE_MAX_MS,
      },
    },
    /** Requests that change something are refused, and the cron trigger changes nothing but the outbox. */
    readOnly: env.READ_ONLY === 'true',
    databaseDeadlineMs: env.DATABASE_DEADLINE_MS,
    /** How many reads of D1 an isolate may have in flight because Redis is away or has lost its data. */
    databaseLookupsMax: env.DATABASE_LOOKUPS_MAX,
    /** `within` of the guards of the app's own reads; 0: each read asks Redis. */
    readsWithinMs: env.READS_WITHIN_MS,
    corsOrigins: env.CORS_ORIGINS,
    /** An IPv6 network of this size is one client. */
    ipv6PrefixBits: env.IPV6_PREFIX_BITS,
    bodyLimitBytes: env.BODY_LIMIT_BYTES,
    tokens: {
      accessTtlSeconds: env.ACCESS_TOKEN_TTL_SECONDS,
      refreshIdleSeconds: env.REFRESH_IDLE_TTL_SECONDS,
      refreshAbsoluteSeconds: env.REFRESH_ABSOLUTE_TTL_SECONDS,
      refreshGraceSeconds: env.REFRESH_GRACE_SECONDS,
      sessionsPerUser: env.SESSIONS_PER_USER,
      /** How long a proof of the password counts as fresh. */
      freshSeconds: env.FRESH_SECONDS,
    },
    passwords: {
      scrypt: { ln: env.SCRYPT_LN, r: env.SCRYPT_R, p: env.SCRYPT_P },
      pepperKeys: env.PEPPER_KEYS,
      /** How many hashes may wait for their turn in an isolate. */
      queueMax: env.HASH_QUEUE_MAX,
      /** Wrong passwords in a row that an account accepts from addresses it has not signed in from. */
      failuresMax: env.PASSWORD_FAILURES_MAX,
      /** The service that looks new passwords up in lists of breached ones. */
      breaches: { url: env.BREACHED_PASSWORDS_URL, deadlineMs: env.BREACHED_PASSWORDS_DEADLINE_MS },
    },
    cache: {
      userTtlSeconds: env.USER_CACHE_TTL_SECONDS,
      listTtlSeconds: env.LIST_CACHE_TTL_SECONDS,
      /** The longest life of a negative entry whose `notFound()` gives no time. */
      negativeTtlSeconds: env.NEGATIVE_CACHE_TTL_SECONDS,
      /** How long after its TTL the app's own cached data is served when the database fails. */
      staleIfErrorSeconds: env.STALE_IF_ERROR_SECONDS,
      loaderDeadlineMs: env.LOADER_DEADLINE_MS,
      tombstoneSeconds: env.TOMBSTONE_SECONDS,
    },
    /** How old an isolate's memory of overridden limits is at most; 0: limits cannot be overridden. */
    limitOverridesSeconds: env.LIMIT_OVERRIDES_SECONDS,
    limits: {
      login: env.LIMIT_LOGIN,
      loginAddress: env.LIMIT_LOGIN_ADDRESS,
      register: env.LIMIT_REGISTER,
      registerDay: env.LIMIT_REGISTER_DAY,
      mailbox: env.LIMIT_MAILBOX,
      api: env.LIMIT_API,
      admin: env.LIMIT_ADMIN,
      account: env.LIMIT_ACCOUNT,
      refresh: env.LIMIT_REFRESH,
      recovery: env.LIMIT_RECOVERY,
      recoveryAccount: env.LIMIT_RECOVERY_ACCOUNT,
      verification: env.LIMIT_VERIFICATION,
      oneTimeToken: env.LIMIT_ONE_TIME_TOKEN,
    },
    /** Your own settings of limits (`limitFrom`), as text. */
    ownLimits: Object.fromEntries(
      Object.entries(bindings).filter(([name]) => name.startsWith('LIMIT_') && !(name in schema.shape)),
    ) as Readonly<Record<string, unknown>>,
    metrics: {
      /** How often an isolate reports its metrics; 0: never. */
      intervalMs: env.METRICS_INTERVAL_MS,
      /** The token that Prometheus presents at `GET /metrics`. */
      token: env.METRICS_TOKEN,
    },
    mail: {
      mailer: env.MAILER,
      /** Present when the mailer is `cloudflare`. */
      from: env.MAIL_FROM,
      /** The sender's name, and the app's name in mails. */
      appName: env.APP_NAME,
      /** Links with `{token}` in them; without one, the mail shows the token itself. */
      recoveryUrl: env.RECOVERY_URL,
      verificationUrl: env.VERIFICATION_URL,
      emailChangeUrl: env.EMAIL_CHANGE_URL,
      emailUndoUrl: env.EMAIL_UNDO_URL,
      deletionUrl: env.DELETION_URL,
      recoveryTtlSeconds: env.RECOVERY_TTL_SECONDS,
      verificationTtlSeconds: env.VERIFICATION_TTL_SECONDS,
      emailChangeTtlSeconds: env.EMAIL_CHANGE_TTL_SECONDS,
      /** How long an old address may undo its change, and is kept for its account. */
      emailUndoTtlSeconds: env.EMAIL_UNDO_TTL_SECONDS,
      deletionTtlSeconds: env.DELETION_TTL_SECONDS,
      /** An account that was never verified is deleted after this time; 0: never. */
      unverifiedTtlSeconds: env.UNVERIFIED_TTL_SECONDS,
    },
  };
}

const parsed = new WeakMap<object, Config>();

/** {@link parseConfig}, once for each `env` object: workerd hands the same one to every request of an isolate. */
export function configOf(bindings: object): Config {
  let config = parsed.get(bindings);
  if (config === undefined) {
    config = parseConfig(bindings);
    parsed.set(bindings, config);
  }
  return config;
}
