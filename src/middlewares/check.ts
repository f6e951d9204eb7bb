import type { Context, MiddlewareHandler } from 'hono';
import { HTTPException } from 'hono/http-exception';

import { AppError } from '../errors';

import type { ErrorCode } from '../errors';
import { stating } from './contract';
import type { LimiterFacts } from './contract';
import type { AppEnv } from './services.middleware';

/** A check's decision: it throws an `AppError` to refuse. */
export type Decide = () => void | Promise<void>;

/** A decision from memory: all checks decide in one turn, so that nothing can change in between. */
export type Recall = () => void;

/**
 * A check in its phases. `guard` runs each phase for all checks before the next, so that the commands of all checks travel to
 * Redis together.
 */
export interface CheckPlan {
  readonly name: string;
  /** The earlier check whose result it uses; without that check, building the `guard` throws. */
  readonly requires?: 'auth';
  readonly provides?: 'auth';
  /** Further error codes for the contract, beside those that its name implies. */
  readonly codes?: readonly ErrorCode[];
  /** Whether its refusal is that of a limit: then no other limit counts the request. */
  readonly limits?: boolean;
  /** A limiter's facts, for administrators. */
  readonly limiter?: LimiterFacts;
  /** Work without Redis, such as a signature. Throwing refuses; checks written before still decide first. */
  local?(c: Context<AppEnv>): void | Promise<void>;
  /** Identifies the caller, once all local work is done. Throwing refuses. */
  identify?(c: Context<AppEnv>): void | Promise<void>;
  /** Throws for callers that must be refused without asking Redis: then no check asks, and nothing is consumed. */
  known?(c: Context<AppEnv>): void;
  /**
   * Issues commands, which are held until every check has issued its own, and returns the decision to run after their replies.
   *
   * @param withinMs for how long the isolate may remember the replies, for {@link recall}; 0: not at all
   */
  prepare?(c: Context<AppEnv>, withinMs: number): Decide | undefined;
  /**
   * Decides from earlier replies of Redis to this isolate: never from one whose command was sent more than `withinMs` ago, from
   * a fallback's, or from one about another caller. This isolate's own changes since then count at once. The call itself
   * changes nothing: another check may still have to ask Redis.
   *
   * A check with `prepare` but no `recall` always asks Redis, and so does each guard that contains it.
   *
   * @returns the decision; `undefined` when Redis must be asked
   */
  recall?(c: Context<AppEnv>, withinMs: number): Recall | undefined;
  /** Wraps the handler, and the `around` of later checks, once all checks have decided. */
  around?(c: Context<AppEnv>, next: () => Promise<void>): Promise<void>;
  /** Whether its refusal, like that of a limit, counts in no earlier limit. */
  uncounted?(c: Context<AppEnv>): boolean;
  /** Takes back what this check consumed for a request that was refused before it counted. */
  undo?(c: Context<AppEnv>): void;
  /** The request is over, however it ended: refused by another check, failed, or handled. Gives back what it still holds. */
  end?(c: Context<AppEnv>): void | Promise<void>;
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
  const plans = [plan];
  const handler: MiddlewareHandler<AppEnv> = async function check(c, next) {
    try {
      await runChecks(c, plans);
      await runAround(c, plans, next);
    } finally {
      await plan.end?.(c);
    }
  };
  // `V` exists in types only: the plan sets those variables when it runs.
  return Object.assign(stating(handler, { checks: [plan] }), { [PLAN]: plan }) as unknown as Check<V>;
}

/** Runs the handler inside the checks' wrappers; the first check's is the outermost. */
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
 * @param withinMs how old the replies of Redis may be by which all of them decide
 * @throws {AppError} the first refusal, in the order written
 */
export async function runChecks(c: Context<AppEnv>, plans: readonly CheckPlan[], withinMs = 0): Promise<void> {
  const { services, inSpan } = c.get('request');
  const { metrics } = services;
  try {
    await (inSpan === undefined
      ? decideAll(c, plans, withinMs)
      : inSpan('guard', { 'gatehouse.checks': plans.map(({ name }) => name).join(', ') }, () =>
          decideAll(c, plans, withinMs),
        ));
  } catch (error) {
    metrics.guarded(error instanceof AppError ? error.code : error instanceof HTTPException ? 'HANDLER' : 'INTERNAL');
    throw error;
  }
  metrics.guarded('ok');
}

async function decideAll(c: Context<AppEnv>, plans: readonly CheckPlan[], withinMs: number): Promise<void> {
  // A local refusal skips the checks after it. Those before it still consume their units.
  let refusal: { error: unknown } | undefined;
  let active = plans;
  for (let index = 0; index < plans.length; index += 1) {
    try {
      const work = plans[index]?.local?.(c);
      if (work !== undefined) await work;
    } catch (error) {
      refusal = { error };
      active = plans.slice(0, index);
      break;
    }
  }

  for (const plan of active) {
    const work = plan.identify?.(c);
    if (work !== undefined) await work;
  }
  for (const plan of active) plan.known?.(c);

  const recalled = withinMs > 0 ? recallAll(c, active, withinMs) : undefined;
  if (recalled !== undefined && active.some(asks)) noteMemory(c);
  const decisions = recalled ?? prepareAll(c, active, withinMs);
  for (let index = 0; index < decisions.length; index += 1) {
    try {
      const deciding = decisions[index]?.();
      if (deciding !== undefined) await deciding;
    } catch (error) {
      // The later checks have their replies too, and give back what they consumed. Checks before the refusing one keep it,
      // unless a limit refuses: such a request consumes nothing anywhere.
      await Promise.allSettled(decisions.slice(index + 1).map(async (later) => later?.()));
      const limited = active[index]?.limits === true || active[index]?.uncounted?.(c) === true;
      for (const [other, plan] of active.entries()) if (other > index || (limited && other < index)) plan.undo?.(c);
      throw error;
    }
  }
  if (refusal !== undefined) throw refusal.error;
}

const asks = (plan: CheckPlan): boolean => plan.prepare !== undefined;

/** Sends the commands of all checks to Redis as one pipeline. */
function prepareAll(c: Context<AppEnv>, plans: readonly CheckPlan[], withinMs: number): (Decide | undefined)[] {
  const release = c.get('request').batch.hold();
  try {
    return plans.map((plan) => plan.prepare?.(c, withinMs));
  } finally {
    release();
  }
}

/** `undefined` when one of them has to ask Redis. */
function recallAll(
  c: Context<AppEnv>,
  plans: readonly CheckPlan[],
  withinMs: number,
): (Recall | undefined)[] | undefined {
  const decisions: (Recall | undefined)[] = [];
  for (const plan of plans) {
    if (!asks(plan)) {
      decisions.push(undefined);
      continue;
    }
    const decide = plan.recall?.(c, withinMs);
    if (decide === undefined) return undefined;
    decisions.push(decide);
  }
  return decisions;
}

/** `Cache-Status` (RFC 9211) of a response whose checks were decided without asking Redis. */
export const FROM_MEMORY = 'Gatehouse; hit; detail=memory';

function noteMemory(c: Context<AppEnv>): void {
  c.header('Cache-Status', FROM_MEMORY, { append: true });
}
