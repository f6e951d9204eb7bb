import type { Context, MiddlewareHandler } from 'hono';

import { planOf, runAround, runChecks } from './check';
import type { CheckPlan, Mergeable } from './check';
import { stating } from './contract';
import type { AppEnv } from './services.middleware';

/** The variables that all checks together add to the context. */
type Added<T extends readonly Mergeable[]> = T extends readonly [
  infer First,
  ...infer Rest extends readonly Mergeable[],
]
  ? (First extends Mergeable<infer V> ? V : object) & Added<Rest>
  : object;

export interface GuardOptions {
  /**
   * For how many milliseconds the isolate may decide about a caller from an earlier reply of Redis, without waiting for a new
   * one: see docs/busy-callers.md. A whole number up to 60,000, or a function of the request. For reads, not for changes.
   * 0: each request asks Redis. @default 0
   */
  within?: number | ((c: Context<AppEnv>) => number);
}

type Guard<T extends readonly Mergeable[]> = MiddlewareHandler<{
  Bindings: AppEnv['Bindings'];
  Variables: AppEnv['Variables'] & Added<T>;
}>;

/**
 * Merges checks: all their commands travel to Redis in ONE request, and each decides in the order written. The first
 * refusal is the response.
 *
 * @example
 * users.get('/me',
 *   guard(rateLimiter(policy.api), authenticate(), reads((c) => UserService.keyOf(c.var.auth.userId))),
 *   async (c) => c.json(await UserService.getUser(c.var.auth.userId)));
 * // Busy callers do not wait for Redis; a revocation elsewhere counts after a second at the latest.
 * users.get('/feed', guard({ within: 1_000 }, rateLimiter(policy.api), authenticate()), feed);
 *
 * @throws {TypeError} at start, when a check stands before the one whose result it uses, or one is given twice
 */
export function guard<const T extends readonly Mergeable[]>(options: GuardOptions, ...checks: T): Guard<T>;
export function guard<const T extends readonly Mergeable[]>(...checks: T): Guard<T>;
export function guard(...given: readonly (GuardOptions | Mergeable)[]): Guard<readonly Mergeable[]> {
  const [first] = given;
  const options = first !== undefined && isOptions(first) ? first : {};
  const checks = (first === options ? given.slice(1) : given) as readonly Mergeable[];
  const withinMs = withinFrom(options);
  if (checks.length === 0) throw new TypeError('guard() needs at least one check');
  const plans: CheckPlan[] = [];
  const provided = new Set<string>();
  for (const check of checks) {
    const plan = planOf(check);
    if (plan === undefined) throw new TypeError('guard() takes checks only: rateLimiter, authenticate, reads, …');
    if (plans.includes(plan)) throw new TypeError(`guard(): one ${plan.name} is given twice`);
    plans.push(plan);
    if (plan.requires !== undefined && !provided.has(plan.requires)) {
      throw new TypeError(`guard(): ${plan.name} needs authenticate() before it`);
    }
    if (plan.provides !== undefined) {
      if (provided.has(plan.provides)) throw new TypeError(`guard(): ${plan.name} is given twice`);
      provided.add(plan.provides);
    }
  }
  const wrappers = plans.filter((plan) => plan.around !== undefined);
  const holders = plans.filter((plan) => plan.end !== undefined);
  const handler: MiddlewareHandler<AppEnv> = async function guard(c, next) {
    try {
      await runChecks(c, plans, withinMs(c));
      await runAround(c, wrappers, next);
    } finally {
      for (const plan of holders) await plan.end?.(c);
    }
  };
  return stating(handler, { checks: plans, remembers: options.within !== undefined });
}

const MAX_WITHIN_MS = 60_000;

function isOptions(given: GuardOptions | Mergeable): given is GuardOptions {
  return typeof given === 'object' && planOf(given as Mergeable) === undefined;
}

function withinFrom({ within = 0, ...others }: GuardOptions): (c: Context<AppEnv>) => number {
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw new TypeError(`guard() has no option ${unknown}`);
  if (typeof within === 'function') return (c) => assertWithin(within(c));
  assertWithin(within);
  return () => within;
}

function assertWithin(withinMs: number): number {
  if (!Number.isInteger(withinMs) || withinMs < 0 || withinMs > MAX_WITHIN_MS) {
    throw new TypeError(`guard(): within must be a whole number of milliseconds from 0 to ${MAX_WITHIN_MS}`);
  }
  return withinMs;
}
