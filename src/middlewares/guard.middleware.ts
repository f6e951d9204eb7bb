import type { MiddlewareHandler } from 'hono';

import { planOf, runAround, runChecks } from './check';
import type { CheckPlan, Mergeable } from './check';
import { stating } from './contract';
import type { AppEnv } from './services.middleware';

/** What all the checks together add to the context. */
type Added<T extends readonly Mergeable[]> = T extends readonly [
  infer First,
  ...infer Rest extends readonly Mergeable[],
]
  ? (First extends Mergeable<infer V> ? V : object) & Added<Rest>
  : object;

/**
 * Merges checks: all that they need from Redis travels in ONE request, and each decides in the order written. The first
 * refusal is the answer.
 *
 * @example
 * users.get('/me',
 *   guard(rateLimiter(policy.api), authenticate(), reads((c) => UserService.keyOf(c.var.auth.userId))),
 *   async (c) => c.json(await UserService.getUser(c.var.auth.userId)));
 *
 * @throws {TypeError} at start, when a check stands before the one whose result it uses, or one is given twice
 */
export function guard<const T extends readonly Mergeable[]>(
  ...checks: T
): MiddlewareHandler<{ Bindings: AppEnv['Bindings']; Variables: AppEnv['Variables'] & Added<T> }> {
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
  const handler: MiddlewareHandler<AppEnv> = async function guard(c, next) {
    await runChecks(c, plans);
    await runAround(c, wrappers, next);
  };
  return stating(handler, { checks: plans }) as unknown as ReturnType<typeof guard<T>>;
}
