import type { Context } from 'hono';
import { HTTPException } from 'hono/http-exception';

import type { Config, LimitSettings } from '../config/env';
import { configOf } from '../config/env';
import { describeError, log } from '../config/log';
import { AppError } from '../errors';
import { LimitOverrideService } from '../services/limitOverride.service';
import { RateLimitService } from '../services/rateLimit.service';
import type {
  Limit,
  LimitAlgorithm,
  LimiterFailurePolicy,
  RateLimitDecision,
  RateLimitPolicy,
} from '../services/rateLimit.service';
import { areSame, assertPolicyName } from '../services/rateLimit/limits';
import type { AuthVariables } from './auth.middleware';
import { check } from './check';
import type { Check } from './check';
import { clientAddress } from './clientAddress';
import { LimitRound, placeOf } from './limitRound';
import type { RoundMember } from './limitRound';
import type { Counted } from './contract';
import { PerRequest } from './perRequest';
import { setLimitHeaders, limitRefusal } from './rateLimitHeaders';
import type { LimitRefusal } from './rateLimitHeaders';
import { assertLimit, assertWindows, listOf, unitsOf } from './limiterOptions';
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
  /** Units that a request consumes before its response is known: a whole number. @default 1 */
  cost?: number | ((c: Ctx) => number);
  /**
   * The request's final cost, by its response (`c.res`): if it is less than `cost`, units are given back; if more, they are
   * charged. A whole number; any other is logged as an error, and `cost` stands.
   *
   * @example
   * charge: (c) => (c.res.status === 401 ? 5 : c.res.status >= 500 ? 0 : 1) // guesses cost more, 5xx nothing
   */
  charge?: (c: Ctx) => number;
  /** The refusal's text. */
  message?: string;
  /** Makes the refusal's response, in place of the problem document. */
  handler?: (c: Ctx) => Response;
  /**
   * Limiters of one name share their counters. By default each place where a limiter is mounted counts for itself: each
   * route (a method and a pattern), and on a route each limiter. 1 to 100 letters, digits, `.`, `_` and `-`: it is
   * used unchanged in headers, keys and metrics.
   */
  name?: string;
  /** The identity that is counted. @default the authenticated user, else the client's address */
  identity?: (c: Ctx) => string | Promise<string>;
  /** Requests that are not limited at all. */
  skip?: (c: Ctx) => boolean;
  /**
   * Identities that are never limited, such as `user:42`, `address:203.0.113.7`, or a network: `address:2001:db8::/32`. In
   * any spelling; an IPv6 address stands for the network that its client is counted by.
   */
  allow?: readonly string[];
  /** Identities that are refused with 403, in the same form. */
  deny?: readonly string[];
  /** How to decide while Redis is away. @default 'local' */
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
  limit: (limits: Config['limits'], config: Config) => LimitSettings;
  /** The kind of identity that `identity` returns. @default 'caller' */
  counts?: Counted;
};

/** The user where the request is authenticated, else the address. */
export function callerIdentity(c: Ctx): string {
  const auth = c.get('auth');
  return auth === undefined ? `address:${clientAddress(c)}` : `user:${auth.userId}`;
}

/** A request's state at one limiter. */
interface LimiterState {
  policy: RateLimitPolicy;
  cost: number;
  round: LimitRound;
  /** `undefined` for a request that is not limited. */
  member?: RoundMember;
  made?: RateLimitDecision;
}

/**
 * Limits requests per identity: no window, wherever it starts, contains more than the limit. Works alone and in
 * `guard(…)`, where it costs no round trip of its own, and where a request that one limiter refuses is charged to none.
 *
 * @example
 * app.use('/api/*', rateLimiter({ windowMs: 60 * 1000, maxRequests: 10, message: 'Too many requests' }));
 * app.post('/sms', rateLimiter({ windows: [{ windowMs: 10_000, maxRequests: 1 }, { windowMs: 86_400_000, maxRequests: 20 }] }));
 *
 * @throws {AppError} when it is built with numbers or a name that make no sense
 */
export function rateLimiter(options: RateLimiterOptions | ConfiguredLimit): Check {
  const { name, message, handler, charge, cost = 1, identity, whenUnavailable = 'local' } = options;
  const { skip = () => false, legacyHeaders = false } = options;
  const [allowed, denied] = [listOf('allow', options.allow), listOf('deny', options.deny)];
  const { algorithm = 'sliding-window' } = options;
  const ownLimits = limitsFrom(options);
  const limitsOf = (c: Ctx, policy: string) => LimitOverrideService.limits(policy, algorithm) ?? ownLimits(c, policy);
  if (name !== undefined) assertPolicyName(name);
  if (typeof cost === 'number') unitsOf(cost, 'cost');

  const states = new PerRequest<LimiterState>();

  function begin(c: Ctx, who: string): void {
    const round = LimitRound.of(c);
    const position = round.position();
    const { ipv6PrefixBits } = configOf(c.env);
    if (denied(who, ipv6PrefixBits)) throw new AppError('FORBIDDEN');
    const policyName = name ?? placeOf(c, position);
    const policy = { name: policyName, limits: limitsOf(c, policyName) };
    const key = RateLimitService.keyOf(policy, who);
    const units = unitsOf(typeof cost === 'function' ? cost(c) : cost, 'cost');
    const state: LimiterState = { policy, cost: units, round };
    if (!allowed(who, ipv6PrefixBits) && !skip(c)) {
      state.member = {
        request: { policy, identity: key, cost: units, whenUnavailable },
        renew() {
          const limits = limitsOf(c, policyName);
          if (areSame(limits, state.policy.limits)) return false;
          state.policy = { name: policyName, limits };
          this.request = { ...this.request, policy: state.policy };
          return true;
        },
        refuse: (refusals) => refuse(c, refusals),
      };
      round.join(state.member);
    }
    states.set(c, state);
  }

  function refuse(c: Ctx, refusals: readonly LimitRefusal[]): Error {
    const error = limitRefusal(refusals, message);
    if (handler === undefined) return error;
    const res = handler(c);
    for (const [header, value] of Object.entries(error.options.headers ?? {})) res.headers.set(header, value);
    return new HTTPException(429, { res });
  }

  function admit(c: Ctx, state: LimiterState, made: RateLimitDecision & { allowed: true }): void {
    state.made = made;
    if (charge !== undefined) c.get('request').onResponse.push(() => settle(c, state, charge));
    // Without a decision there is no quota to report.
    if (made.source !== 'none') setLimitHeaders(c, made.quotas, legacyHeaders);
  }

  /** After the response: charges or gives back the difference to the units charged before it. */
  function settle(c: Ctx, state: LimiterState, chargeFor: (c: Ctx) => number): void {
    if (state.made?.allowed !== true) return;
    try {
      state.made.settle(unitsOf(chargeFor(c), 'charge') - state.cost);
    } catch (error) {
      // The response exists already, and the caller is not at fault.
      const detail = error instanceof AppError ? error.message : undefined;
      log('error', 'limiter.charge_failed', { ...describeError(error), detail, limiter: state.policy.name });
    }
  }

  return check({
    name: 'rateLimiter()',
    limits: true,
    limiter: { name, counts: countedBy(options), algorithm, limits: fixedLimits(options, algorithm) },
    ...(identity === undefined
      ? { identify: (c: Ctx) => begin(c, callerIdentity(c)) }
      : {
          async identify(c: Ctx) {
            begin(c, await identity(c));
          },
        }),
    known(c) {
      const { round, member } = stateOf(states, c);
      const refusal = member && round.known(member);
      if (refusal !== undefined) throw refusal;
    },
    prepare(c, withinMs) {
      const state = stateOf(states, c);
      const { round, member } = state;
      if (member === undefined) return undefined;
      void round.ask(withinMs);
      return async () => admit(c, state, await round.decide(member));
    },
    recall(c, withinMs) {
      const state = stateOf(states, c);
      const { round, member } = state;
      if (member === undefined) return () => undefined;
      const decide = round.recall(member, withinMs);
      if (decide === undefined) return undefined;
      return () => {
        const made = decide();
        if (made.allowed) admit(c, state, made);
      };
    },
    undo(c) {
      const state = stateOf(states, c);
      if (state.made?.allowed === true) state.made.settle(-state.cost);
      delete state.made;
    },
  });
}

function countedBy(options: RateLimiterOptions | ConfiguredLimit): Counted {
  if ('limit' in options && options.counts !== undefined) return options.counts;
  return options.identity === undefined ? 'caller' : 'own';
}

/** A limiter's own numbers, where they do not depend on the request. */
function fixedLimits(options: RateLimiterOptions | ConfiguredLimit, algorithm: LimitAlgorithm) {
  return (config: Config): readonly Limit[] | undefined => {
    if ('limit' in options) return [{ algorithm, ...options.limit(config.limits, config) }];
    const { windows, maxRequests, windowMs = 60_000 } = options;
    if (typeof maxRequests === 'function') return undefined;
    return (windows ?? [{ windowMs, maxRequests }]).map((window) => ({
      algorithm,
      windowMs: window.windowMs,
      maxRequests: window.maxRequests,
    }));
  };
}

/** The limits of a request; checked when the limiter is built where they do not depend on the request. */
function limitsFrom(options: RateLimiterOptions | ConfiguredLimit): (c: Ctx, policy: string) => readonly Limit[] {
  const { algorithm = 'sliding-window', name } = options;
  const limitOf = (numbers: Window, policy = name): readonly Limit[] => [
    { algorithm, ...assertLimit(numbers, policy) },
  ];
  if ('limit' in options) {
    const configured = new WeakMap<Config, readonly Limit[]>();
    return (c) => {
      const config = configOf(c.env);
      const known = configured.get(config) ?? limitOf(options.limit(config.limits, config));
      configured.set(config, known);
      return known;
    };
  }
  if (options.windows !== undefined) {
    const limits = assertWindows(options.windows, name).map(({ windowMs, maxRequests }): Limit => ({
      algorithm,
      windowMs,
      maxRequests,
    }));
    return () => limits;
  }
  const { maxRequests, windowMs = 60_000 } = options;
  if (typeof maxRequests === 'function')
    return (c, policy) => limitOf({ windowMs, maxRequests: maxRequests(c) }, policy);
  const limits = limitOf({ windowMs, maxRequests });
  return () => limits;
}

function stateOf(states: PerRequest<LimiterState>, c: Ctx): LimiterState {
  const state = states.get(c);
  if (state === undefined) throw new Error('a limiter was asked before it knew whom it limits');
  return state;
}
