import type { Violation } from './model.ts';
import type { Plan } from './plan.ts';
import { run } from './run.ts';
import type { Stage } from './world.ts';

/**
 * The fewest steps of a plan that still violate an invariant in the same way (delta debugging: Zeller and Hildebrandt, Simplifying and
 * Isolating Failure-Inducing Input, 2002), then without losses and with true clocks, where those do not matter.
 */
export async function shrink(
  stage: Stage,
  plan: Plan,
  { invariant, state }: Pick<Violation, 'invariant' | 'state'>,
): Promise<Plan> {
  const fails = async (candidate: Plan) =>
    (await run(stage, candidate)).violations.some((one) => one.invariant === invariant && one.state === state);

  let best = plan;
  const attempt = async (candidate: Plan) => {
    if (!(await fails(candidate))) return false;
    best = candidate;
    return true;
  };

  for (let parts = 2; best.steps.length >= 2;) {
    const size = Math.ceil(best.steps.length / parts);
    let removed = false;
    for (let from = 0; from < best.steps.length; from += size) {
      const steps = best.steps.filter((_, index) => index < from || index >= from + size);
      if (await attempt({ ...best, steps })) {
        removed = true;
        break;
      }
    }
    if (removed) parts = Math.max(2, parts - 1);
    else if (size === 1) break;
    else parts = Math.min(best.steps.length, parts * 2);
  }

  await attempt({ ...best, clocks: best.clocks.map(() => ({ offsetMs: 0, driftPpm: 0 })) });
  if (best.replicas === true) {
    const { replicas: _, ...without } = best;
    await attempt(without);
  }
  for (const [index, step] of best.steps.entries()) {
    if ('lose' in step && step.lose !== undefined) {
      const { lose: _, ...without } = step;
      await attempt({ ...best, steps: best.steps.with(index, without) });
    }
  }
  const lastMs = best.steps.at(-1)?.at ?? 0;
  await attempt({ ...best, lengthMs: Math.min(best.lengthMs, lastMs + 1_000) });
  return best;
}
