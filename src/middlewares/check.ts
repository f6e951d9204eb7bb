import type { Context, MiddlewareHandler } from 'hono';

import { stating } from './contract';
import type { AppEnv } from './services.middleware';

/** What a check's last word takes: it throws an `AppError` to refuse. */
export type Decide = () => void | Promise<void>;

/**
 * A check in its phases. `guard` runs each phase for all checks before the next, so that what they all need from Redis
 * travels together.
 */
export interface CheckPlan {
  readonly name: string;
  /** Of which earlier check's result it makes use; `guard` refuses at start to be built without it. */
  readonly requires?: 'auth';
  readonly provides?: 'auth';
  /** Whether its refusal is a limit's: then nobody else's limit counts the request either. */
  readonly limits?: boolean;
  /** Work without Redis, such as a signature. Throwing refuses; checks written before still decide first. */
  local?(c: Context<AppEnv>): void | Promise<void>;
  /** Who is asking, once all local work is done. Throwing refuses. */
  identify?(c: Context<AppEnv>): void | Promise<void>;
  /** Throws for whoever is known here to be refused: no check asks Redis then, and nothing is consumed. */
  known?(c: Context<AppEnv>): void;
  /** Issues commands (they are held until every check has) and returns what decides once their replies are in. */
  prepare?(c: Context<AppEnv>): Decide | undefined;
  /** Takes the place of the handler, and of the checks' `around` written after it, once all checks have decided. */
  around?(c: Context<AppEnv>, next: () => Promise<void>): Promise<void>;
  /** Takes back what this check consumed for a request that was refused before it counted. */
  undo?(c: Context<AppEnv>): void;
}

const PLAN = Symbol('plan');

/** Anything that `guard` can merge; `V` is what it adds to the context's variables. */
export interface Mergeable<V extends object = object> {
  readonly [PLAN]: CheckPlan;
  /** Only a type: carries `V`. */
  readonly adds?: V;
}

/** A middleware that works alone and in `guard`. */
// oxlint-disable-next-line typescript/no-empty-object-type -- adds nothing by default
export type Check<V extends object = {}> = Mergeable<V> &
  MiddlewareHandler<{ Bindings: AppEnv['Bindings']; Variables: AppEnv['Variables'] & V }>;

/** `undefined` for a middleware that is no check. */
export function planOf(check: Mergeable): CheckPlan | undefined {
  return check[PLAN];
}

/** Makes a middleware that works alone, as `guard(check)` would. */
// oxlint-disable-next-line typescript/no-empty-object-type -- adds nothing by default
export function check<V extends object = {}>(plan: CheckPlan): Check<V> {
  const handler: MiddlewareHandler<AppEnv> = async function check(c, next) {
    await runChecks(c, [plan]);
    await runAround(c, [plan], next);
  };
  return Object.assign(stating(handler, { checks: [plan] }), { [PLAN]: plan }) as unknown as Check<V>;
}

/** The handler, in whatever the checks put around it: the one written first is the outermost. */
export function runAround(
  c: Context<AppEnv>,
  [plan, ...rest]: readonly CheckPlan[],
  next: () => Promise<void>,
): Promise<void> {
  if (plan === undefined) return next();
  const inner = () => runAround(c, rest, next);
  return plan.around === undefined ? inner() : plan.around(c, inner);
}

/**
 * Local work first, then one pipeline for what all checks need, then each decides in the order written.
 *
 * @throws {AppError} the first refusal, in the order written
 */
export async function runChecks(c: Context<AppEnv>, plans: readonly CheckPlan[]): Promise<void> {
  // A check that refuses locally ends the list: what comes after it is not even asked, what comes before still counts.
  let refusal: { error: unknown } | undefined;
  let active = plans;
  for (const [index, plan] of plans.entries()) {
    try {
      const work = plan.local?.(c);
      if (work !== undefined) await work;
    } catch (error) {
      refusal = { error };
      active = plans.slice(0, index);
      break;
    }
  }

  const { batch } = c.get('request');
  for (const plan of active) {
    const work = plan.identify?.(c);
    if (work !== undefined) await work;
  }
  for (const plan of active) plan.known?.(c);

  const release = batch.hold();
  const decisions: (Decide | undefined)[] = [];
  try {
    for (const plan of active) decisions.push(plan.prepare?.(c));
  } finally {
    release();
  }

  for (const [index, decide] of decisions.entries()) {
    try {
      await decide?.();
    } catch (error) {
      // Replies of the later ones are in as well. What they consumed goes back; what stood before the refusing check
      // counts, unless that one is a limit itself: a request that a limit refuses consumes nothing anywhere.
      await Promise.allSettled(decisions.slice(index + 1).map(async (later) => later?.()));
      const limited = active[index]?.limits === true;
      for (const [other, plan] of active.entries()) if (other > index || (limited && other < index)) plan.undo?.(c);
      throw error;
    }
  }
  if (refusal !== undefined) throw refusal.error;
}
