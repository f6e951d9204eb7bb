import type { Context } from 'hono';
import { HTTPException } from 'hono/http-exception';
import { routePath } from 'hono/route';

import type { Config, Limit as ConfiguredNumbers } from '../config/env';
import { configOf } from '../config/env';
import { AppError, unavailable } from '../errors';
import { RateLimitService } from '../services/rateLimit.service';
import type {
  Limit,
  LimitAlgorithm,
  LimitKey,
  LimiterFailurePolicy,
  RateLimitDecision,
  RateLimitPolicy,
} from '../services/rateLimit.service';
import type { AuthVariables } from './auth.middleware';
import { check } from './check';
import type { Check } from './check';
import { clientAddress } from './clientAddress';
import { announce, refusal } from './rateLimitHeaders';
import type { AppEnv } from './services.middleware';

/** A request as the options' functions see it: authenticated when `authenticate()` stands in the same guard, or before. */
type Ctx = Context<{ Bindings: AppEnv['Bindings']; Variables: AppEnv['Variables'] & Partial<AuthVariables> }>;

/** One of several windows of a limiter. */
export interface Window {
  /** Window length in milliseconds. */
  windowMs: number;
  /** Requests admitted per identity in any window. A positive integer. */
  maxRequests: number;
}

interface CommonOptions {
  /** @default 'sliding-window' */
  algorithm?: LimitAlgorithm;
  /** Units that a request consumes, before its answer is known. @default 1 */
  cost?: number | ((c: Ctx) => number);
  /**
   * What the request costs after all, told by its answer (`c.res`): less than `cost` gives back, more is charged on top.
   *
   * @example
   * charge: (c) => (c.res.status === 401 ? 5 : c.res.status >= 500 ? 0 : 1) // guesses are dear, our faults are free
   */
  charge?: (c: Ctx) => number;
  /** Said to whoever is refused. */
  message?: string;
  /** Answers whoever is refused, in place of the problem document. */
  handler?: (c: Ctx) => Response;
  /** Limiters of one name share their counters. By default each place where a limiter is mounted counts for itself. */
  name?: string;
  /** Who is counted. @default the authenticated user, else the client's address */
  identity?: (c: Ctx) => string | Promise<string>;
  /** Requests that are not limited at all. */
  skip?: (c: Ctx) => boolean;
  /** Identities that are never limited, such as `address:203.0.113.7` or `user:42`. */
  allow?: readonly string[];
  /** Identities that are refused, 403. */
  deny?: readonly string[];
  /** What decides while Redis is away. @default 'local' */
  whenUnavailable?: LimiterFailurePolicy;
  /** Adds `X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds) beside the standard headers. @default false */
  legacyHeaders?: boolean;
}

/** Options of {@link rateLimiter}: one window, or several that are decided together. */
export type RateLimiterOptions = CommonOptions &
  (
    | {
        /** Window length in milliseconds. @default 60_000 */
        windowMs?: number;
        /** Requests admitted per identity in any window: a positive integer, or a function of the request (by plan or role). */
        maxRequests: number | ((c: Ctx) => number);
        windows?: never;
      }
    | { windows: readonly Window[]; windowMs?: never; maxRequests?: never }
  );

/** A limiter whose numbers come from the settings. */
export type ConfiguredLimit = CommonOptions & {
  name: string;
  limit: (limits: Config['limits']) => ConfiguredNumbers;
};

/** The user where the request is authenticated, else the address. */
export function callerIdentity(c: Ctx): string {
  const { auth } = c.var;
  return auth === undefined ? `address:${clientAddress(c)}` : `user:${auth.userId}`;
}

/** What a request has to do with one limiter. */
interface LimiterState {
  policy: RateLimitPolicy;
  key: LimitKey;
  skipped: boolean;
  cost: number;
  made?: RateLimitDecision;
}

/**
 * Limits requests per identity in exact windows. Works alone and in `guard(…)`, where it costs no round trip of its own;
 * one that a later check makes pointless is given back.
 *
 * @example
 * app.use('/api/*', rateLimiter({ windowMs: 60 * 1000, maxRequests: 10, message: 'Too many requests' }));
 * app.post('/sms', rateLimiter({ windows: [{ windowMs: 10_000, maxRequests: 1 }, { windowMs: 86_400_000, maxRequests: 20 }] }));
 */
export function rateLimiter(options: RateLimiterOptions | ConfiguredLimit): Check {
  const { name, message, handler, charge, cost = 1, identity, whenUnavailable = 'local' } = options;
  const { skip = () => false, legacyHeaders = false, algorithm = 'sliding-window' } = options;
  const [allow, deny] = [new Set(options.allow), new Set(options.deny)];
  assertOptions(options);

  const states = new WeakMap<Context, LimiterState>();

  const limitsOf = (c: Ctx): Limit[] => {
    if ('limit' in options) return [{ algorithm, ...options.limit(configOf(c.env).limits) }];
    if (options.windows !== undefined) return options.windows.map((window) => ({ algorithm, ...window }));
    const { maxRequests, windowMs = 60_000 } = options;
    return [{ algorithm, windowMs, maxRequests: typeof maxRequests === 'function' ? maxRequests(c) : maxRequests }];
  };

  function begin(c: Ctx, who: string): LimiterState {
    if (deny.has(who)) throw new AppError('FORBIDDEN');
    const limits = limitsOf(c);
    for (const limit of limits) assertLimit(limit);
    // A limit that depends on the request is one counter, whatever its number is just now.
    const label = name ?? `${limits.map(({ windowMs }) => windowMs).join('-')}-${slug(routePath(c))}`;
    const policy = { name: label, limits };
    const state: LimiterState = {
      policy,
      key: RateLimitService.keyOf(policy, who),
      skipped: allow.has(who) || skip(c),
      cost: typeof cost === 'function' ? cost(c) : cost,
    };
    states.set(c, state);
    return state;
  }

  function refuse(c: Ctx, state: LimiterState, retryAfterMs: number, violated: readonly string[]): Error {
    const error = refusal(state.policy, retryAfterMs, violated, message);
    if (handler === undefined) return error;
    const res = handler(c);
    for (const [header, value] of Object.entries(error.options.headers ?? {})) res.headers.set(header, value);
    return new HTTPException(429, { res });
  }

  return check({
    name: 'rateLimiter()',
    limits: true,
    ...(identity === undefined
      ? { identify: (c: Ctx) => void begin(c, callerIdentity(c)) }
      : {
          async identify(c: Ctx) {
            begin(c, await identity(c));
          },
        }),
    known(c) {
      const state = stateOf(states, c);
      if (state.skipped) return;
      const block = RateLimitService.block(state.policy, state.key, state.cost);
      if (block !== undefined) throw refuse(c, state, block.retryAfterMs, block.violated);
    },
    prepare(c) {
      const state = stateOf(states, c);
      if (state.skipped) return undefined;
      const { policy, key } = state;
      const decision = RateLimitService.consume({ policy, identity: key, cost: state.cost, whenUnavailable });
      return async () => {
        const made = await decision;
        state.made = made;
        if (!made.allowed) {
          if (made.reason === 'unavailable') throw unavailable('The rate limiter');
          throw refuse(c, state, made.retryAfterMs, made.violated);
        }
        // No quota for a decision that nobody made.
        if (made.source !== 'none') announce(c, made.quotas, legacyHeaders);
      };
    },
    undo(c) {
      const state = stateOf(states, c);
      if (state.made?.allowed === true) state.made.settle(-state.cost);
      delete state.made;
    },
    ...(charge !== undefined && {
      after(c: Ctx) {
        const state = states.get(c);
        if (state?.made?.allowed === true) state.made.settle(charge(c) - state.cost);
      },
    }),
  });
}

function stateOf(states: WeakMap<Context, LimiterState>, c: Ctx): LimiterState {
  const state = states.get(c);
  if (state === undefined) throw new Error('a limiter was asked before it knew whom it limits');
  return state;
}

function assertOptions(options: RateLimiterOptions | ConfiguredLimit): void {
  if ('limit' in options) return;
  if (options.windows !== undefined) {
    if (options.windows.length === 0) throw wrong('rateLimiter() needs at least one window.');
    for (const window of options.windows) assertLimit(window);
    if (new Set(options.windows.map(({ windowMs }) => windowMs)).size < options.windows.length) {
      throw wrong('rateLimiter(): two windows of one length.');
    }
  } else if (typeof options.maxRequests !== 'function') {
    assertLimit({ maxRequests: options.maxRequests, windowMs: options.windowMs ?? 60_000 });
  }
}

function assertLimit({ maxRequests, windowMs }: Window): void {
  const whole = Number.isInteger(maxRequests) && maxRequests >= 1 && Number.isInteger(windowMs) && windowMs >= 1;
  // The arithmetic is exact as long as its products are.
  if (!whole || maxRequests * windowMs > Number.MAX_SAFE_INTEGER / 4) {
    throw wrong('rateLimiter() needs positive integers: maxRequests, windowMs.');
  }
}

function wrong(detail: string): AppError {
  return new AppError('CONFIG_INVALID', { detail });
}

/** A route's pattern as part of a name: `/v1/users/:id` -> `v1-users-id`. */
function slug(path: string): string {
  return (
    path
      .replaceAll(/[^A-Za-z0-9]+/g, '-')
      .replaceAll(/^-|-$/g, '')
      .slice(0, 64) || 'all'
  );
}
