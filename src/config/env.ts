// The namespace, not `{ z }`: that one brings every locale of zod along, half the Worker's size.
import * as z from 'zod';

import { AppError } from '../errors';
import { keySetFaults, shareSecret } from './keySet';
import type { KeySetConfig, SetKind } from './keySet';

export type { KeySetConfig } from './keySet';

/** `5/15m`: admitted requests and window (`s`, `m`, `h` or `d`). */
export interface Limit {
  maxRequests: number;
  windowMs: number;
}

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

const limit = (fallback: string) =>
  z
    .string()
    .regex(/^[1-9]\d{0,8}\/[1-9]\d{0,5}[smhd]$/, 'expected REQUESTS/WINDOW, such as 5/15m')
    .default(fallback)
    .transform((text): Limit => {
      const [count = '', window = ''] = text.split('/');
      const unit = window.slice(-1) as keyof typeof UNIT_MS;
      return { maxRequests: Number(count), windowMs: Number(window.slice(0, -1)) * UNIT_MS[unit] };
    })
    // The limiter's arithmetic is exact as long as its products are.
    .refine(({ maxRequests, windowMs }) => maxRequests * windowMs <= Number.MAX_SAFE_INTEGER / 4, 'is too large');

const integer = (fallback: number, min = 1, max = Number.MAX_SAFE_INTEGER) =>
  z.coerce.number().int().min(min).max(max).default(fallback);

const list = z
  .string()
  .default('')
  .transform((text) => text.split(',').flatMap((part) => part.trim() || []));

/** A set of keys with states, as `npm run keys` writes it: one active, any number of next and retired ones. */
const keySet = (kind: SetKind) =>
  z
    .string()
    .min(1)
    .transform((text, context) => {
      try {
        return JSON.parse(text) as unknown;
      } catch {
        // Not the parser's own message: it quotes the text, which is a secret.
        context.addIssue('is not JSON (create it with `npm run keys`)');
        return z.NEVER;
      }
    })
    .transform((value, context): KeySetConfig => {
      for (const fault of keySetFaults(kind, value)) context.addIssue(fault);
      return value as KeySetConfig;
    });

/** scrypt's cost: N = 2^ln, block size r, parallelism p (RFC 7914). It needs 128·N·r bytes. */
export interface ScryptParameters {
  ln: number;
  r: number;
  p: number;
}

/** The runtime's cap on N·r·p. */
const SCRYPT_CAP = 2 ** 20;
/**
 * Least p for a memory of 2^ln KiB (ln with r = 8): the OWASP Password Storage Cheat Sheet's equal configurations, but
 * for the one that needs all of an isolate's 128 MiB.
 */
const LEAST_P: Readonly<Record<number, number>> = { 13: 10, 14: 5, 15: 3, 16: 2 };

function isStrong({ ln, r, p }: ScryptParameters): boolean {
  const memory = ln + Math.floor(Math.log2(r / 8));
  return 2 ** ln * r * p <= SCRYPT_CAP && p >= (LEAST_P[memory] ?? Number.POSITIVE_INFINITY);
}

/** One line without control characters: it becomes part of a mail's header. */
const line = z
  .string()
  .trim()
  .min(1)
  .max(60)
  .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'must not contain control characters');

/** Where a mail's link leads: a web page or a deep link of the app. */
const linkTemplate = z
  .string()
  .max(1_000)
  .refine((text) => text.split('{token}').length === 2, 'must contain {token} once')
  .refine((text) => !/\s/.test(text) && URL.canParse(text.replace('{token}', 'x')), 'must be a URL')
  .optional();

/** Names and addresses that cannot be anybody's but a developer's (RFC 6761, section 6; RFC 1122, section 3.2.1.3). */
function isDeveloperMachine(url: string): boolean {
  const hostname = URL.canParse(url) ? new URL(url).hostname : '';
  return /^(?:127(?:\.\d+){3}|\[::1\]|(?:.+\.)?localhost|.+\.test)$/.test(hostname);
}

/** Bindings as strings -> settings. Every default of the product's policy stands here. */
const schema = z
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
    CORS_ORIGINS: list,
    IPV6_PREFIX_BITS: integer(64, 16, 128),
    BODY_LIMIT_BYTES: integer(65_536, 1_024, 10_485_760),

    ACCESS_TOKEN_TTL_SECONDS: integer(900, 30, 86_400),
    REFRESH_IDLE_TTL_SECONDS: integer(7 * 86_400, 60),
    REFRESH_ABSOLUTE_TTL_SECONDS: integer(30 * 86_400, 60, 366 * 86_400),
    REFRESH_GRACE_SECONDS: integer(30, 0, 3_600),
    SESSIONS_PER_USER: integer(10, 1, 100),

    SCRYPT_LN: integer(15, 1, 17),
    SCRYPT_R: integer(8, 8, 64),
    SCRYPT_P: integer(3, 1, 16),
    HASH_QUEUE_MAX: integer(20, 0, 1_000),

    USER_CACHE_TTL_SECONDS: integer(600),
    LIST_CACHE_TTL_SECONDS: integer(300),
    NEGATIVE_CACHE_TTL_SECONDS: integer(30, 1, 3_600),
    STALE_IF_ERROR_SECONDS: integer(3_600, 0, 7 * 86_400),
    LOADER_DEADLINE_MS: integer(10_000, 100, 30_000),
    TOMBSTONE_SECONDS: integer(60, 1, 3_600),

    LIMIT_LOGIN: limit('5/15m'),
    LIMIT_LOGIN_ADDRESS: limit('50/15m'),
    LIMIT_REGISTER: limit('3/1m'),
    LIMIT_API: limit('100/15m'),
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
    RECOVERY_TTL_SECONDS: integer(1_800, 60, 86_400),
    VERIFICATION_TTL_SECONDS: integer(86_400, 60, 30 * 86_400),

    REDIS_GUARD_DEADLINE_MS: integer(200, 1, 10_000),
    REDIS_AUTH_DEADLINE_MS: integer(1_000, 1, 10_000),
    REDIS_CALL_TIMEOUT_MS: integer(2_000, 1, 30_000),
    DATABASE_DEADLINE_MS: integer(2_000, 1, 30_000),
    DATABASE_LOOKUPS_MAX: integer(64, 1, 10_000),

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
    // A fill that comes later than its tombstone would not be refused any more.
    path: ['TOMBSTONE_SECONDS'],
    message: 'must be longer than LOADER_DEADLINE_MS',
  })
  .refine(
    (env) => isDeveloperMachine(env.ISSUER) || isStrong({ ln: env.SCRYPT_LN, r: env.SCRYPT_R, p: env.SCRYPT_P }),
    {
      // Whoever develops may have hashes that cost nothing.
      path: ['SCRYPT_LN'],
      message:
        'with SCRYPT_R and SCRYPT_P it is too weak or too dear: take 13/8/10, 14/8/5, 15/8/3, 16/8/2 or, ' +
        'up to 2^LN·R·P = 2^20, more',
    },
  )
  .refine((env) => env.MAILER !== 'console' || isDeveloperMachine(env.ISSUER), {
    // It writes tokens where production keeps its logs.
    path: ['MAILER'],
    message: 'console is for developing: ISSUER must be on localhost, 127.0.0.1 or under .test',
  })
  .refine((env) => env.MAILER !== 'cloudflare' || env.MAIL_FROM !== undefined, {
    path: ['MAIL_FROM'],
    message: 'is needed by MAILER=cloudflare',
  });

/** The app's settings, checked. Durations carry their unit in the name. */
export interface Config {
  issuer: string;
  audience: string;
  signingKeys: KeySetConfig;
  refreshKeys: KeySetConfig;
  redis: {
    url: string;
    token: string;
    prefix: string;
    /** Scripts say that they touch their KEYS only, so that Upstash does not lock the whole database for them. */
    keyLocking: boolean;
    /** What one request may wait for Redis in all, before its handler / on an auth route. */
    guardDeadlineMs: number;
    authDeadlineMs: number;
    /** When a call that nobody waits for any more is given up. */
    callTimeoutMs: number;
    breaker: {
      windowMs: number;
      minCalls: number;
      failureRatio: number;
      probeMs: number;
      probeMaxMs: number;
    };
  };
  databaseDeadlineMs: number;
  /** How many reads of D1 an isolate has under way because Redis is away or has lost what it is asked. */
  databaseLookupsMax: number;
  corsOrigins: readonly string[];
  /** An IPv6 network of this size is one client. */
  ipv6PrefixBits: number;
  bodyLimitBytes: number;
  tokens: {
    accessTtlSeconds: number;
    refreshIdleSeconds: number;
    refreshAbsoluteSeconds: number;
    refreshGraceSeconds: number;
    sessionsPerUser: number;
  };
  passwords: {
    scrypt: ScryptParameters;
    pepperKeys: KeySetConfig | undefined;
    /** Hashes that may wait for their turn in an isolate. */
    queueMax: number;
  };
  cache: {
    userTtlSeconds: number;
    listTtlSeconds: number;
    /** What a loader's `notFound()` lasts at most, unless it says how long. */
    negativeTtlSeconds: number;
    /** How long after its TTL the app's own cached data is served when the database fails. */
    staleIfErrorSeconds: number;
    loaderDeadlineMs: number;
    tombstoneSeconds: number;
  };
  limits: {
    login: Limit;
    loginAddress: Limit;
    register: Limit;
    api: Limit;
    refresh: Limit;
    recovery: Limit;
    recoveryAccount: Limit;
    verification: Limit;
    oneTimeToken: Limit;
  };
  mail: {
    mailer: 'none' | 'cloudflare' | 'console';
    /** There when the mailer is `cloudflare`. */
    from: string | undefined;
    /** The sender's name, and what mails call the app. */
    appName: string;
    /** Links with `{token}` in them; without one, the mail shows the token itself. */
    recoveryUrl: string | undefined;
    verificationUrl: string | undefined;
    recoveryTtlSeconds: number;
    verificationTtlSeconds: number;
  };
}

/**
 * Checks the bindings.
 *
 * @throws {AppError} `CONFIG_INVALID`, whose detail names every setting that is missing or wrong, never a value
 */
export function parseConfig(bindings: object): Config {
  const result = schema.safeParse(bindings);
  const missing: string[] = 'DB' in bindings ? [] : ['DB (a D1 database)'];
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
  return shape(result.data);
}

function shape(env: z.infer<typeof schema>): Config {
  return {
    issuer: env.ISSUER,
    audience: env.AUDIENCE,
    signingKeys: env.SIGNING_KEYS,
    refreshKeys: env.REFRESH_KEYS,
    redis: {
      url: env.UPSTASH_REDIS_REST_URL,
      token: env.UPSTASH_REDIS_REST_TOKEN,
      prefix: env.KEY_PREFIX,
      keyLocking:
        env.REDIS_KEY_LOCKING === undefined
          ? new URL(env.UPSTASH_REDIS_REST_URL).hostname.endsWith('.upstash.io')
          : env.REDIS_KEY_LOCKING === 'true',
      guardDeadlineMs: env.REDIS_GUARD_DEADLINE_MS,
      authDeadlineMs: env.REDIS_AUTH_DEADLINE_MS,
      callTimeoutMs: env.REDIS_CALL_TIMEOUT_MS,
      breaker: {
        windowMs: env.BREAKER_WINDOW_MS,
        minCalls: env.BREAKER_MIN_CALLS,
        failureRatio: env.BREAKER_FAILURE_PERCENT / 100,
        probeMs: env.BREAKER_PROBE_MS,
        probeMaxMs: env.BREAKER_PROBE_MAX_MS,
      },
    },
    databaseDeadlineMs: env.DATABASE_DEADLINE_MS,
    databaseLookupsMax: env.DATABASE_LOOKUPS_MAX,
    corsOrigins: env.CORS_ORIGINS,
    ipv6PrefixBits: env.IPV6_PREFIX_BITS,
    bodyLimitBytes: env.BODY_LIMIT_BYTES,
    tokens: {
      accessTtlSeconds: env.ACCESS_TOKEN_TTL_SECONDS,
      refreshIdleSeconds: env.REFRESH_IDLE_TTL_SECONDS,
      refreshAbsoluteSeconds: env.REFRESH_ABSOLUTE_TTL_SECONDS,
      refreshGraceSeconds: env.REFRESH_GRACE_SECONDS,
      sessionsPerUser: env.SESSIONS_PER_USER,
    },
    passwords: {
      scrypt: { ln: env.SCRYPT_LN, r: env.SCRYPT_R, p: env.SCRYPT_P },
      pepperKeys: env.PEPPER_KEYS,
      queueMax: env.HASH_QUEUE_MAX,
    },
    cache: {
      userTtlSeconds: env.USER_CACHE_TTL_SECONDS,
      listTtlSeconds: env.LIST_CACHE_TTL_SECONDS,
      negativeTtlSeconds: env.NEGATIVE_CACHE_TTL_SECONDS,
      staleIfErrorSeconds: env.STALE_IF_ERROR_SECONDS,
      loaderDeadlineMs: env.LOADER_DEADLINE_MS,
      tombstoneSeconds: env.TOMBSTONE_SECONDS,
    },
    limits: {
      login: env.LIMIT_LOGIN,
      loginAddress: env.LIMIT_LOGIN_ADDRESS,
      register: env.LIMIT_REGISTER,
      api: env.LIMIT_API,
      refresh: env.LIMIT_REFRESH,
      recovery: env.LIMIT_RECOVERY,
      recoveryAccount: env.LIMIT_RECOVERY_ACCOUNT,
      verification: env.LIMIT_VERIFICATION,
      oneTimeToken: env.LIMIT_ONE_TIME_TOKEN,
    },
    mail: {
      mailer: env.MAILER,
      from: env.MAIL_FROM,
      appName: env.APP_NAME,
      recoveryUrl: env.RECOVERY_URL,
      verificationUrl: env.VERIFICATION_URL,
      recoveryTtlSeconds: env.RECOVERY_TTL_SECONDS,
      verificationTtlSeconds: env.VERIFICATION_TTL_SECONDS,
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
