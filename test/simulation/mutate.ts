import { bundleWorker } from './bundle.ts';
import type { DatabaseKind } from './database.ts';
import type { Violation } from './model.ts';
import { MUTATIONS } from './mutations.ts';
import type { Mutation } from './mutations.ts';
import { planOf } from './planOf.ts';
import { runSeeds } from './pool.ts';
import { keep, REGRESSIONS } from './regressions.ts';
import { run } from './run.ts';
import { shrink } from './shrink.ts';
import { buildStage } from './world.ts';

/** A mutation that is not noticed within so many seeds is one that the simulation does not see. */
const MAX_SEEDS = 2_000;

export interface MutationOptions {
  /** Mutations to try, by name. @default all */
  only?: RegExp | undefined;
  workers?: number | undefined;
  database: DatabaseKind;
  /** Seeds that each may take. @default {@link MAX_SEEDS} */
  seeds?: number | undefined;
  /** The first of them. */
  from: number;
  /** Keeps the shrunk plan of the seed that notices, under this name. */
  save?: string | undefined;
}

/**
 * Applies each mutation to the source, and prints which kept plan, or which seed, finds an invariant violated.
 *
 * @returns the exit code
 */
export async function tryMutations({ only, seeds = MAX_SEEDS, save, ...options }: MutationOptions): Promise<number> {
  const { database } = options;
  let unseen = 0;
  const wanted = MUTATIONS.filter((one) => (one.database ?? database) === database && (only?.test(one.name) ?? true));
  for (const mutation of wanted) {
    const bundle = await bundleWorker(database, mutation);
    const found = (await byPlans(bundle, mutation, database)) ?? (await bySeeds({ ...options, bundle, seeds, save }));
    if (found === undefined) unseen += 1;
    console.log(`${mutation.name}: ${found ?? `NOT noticed in ${seeds} seeds`}`);
  }
  return unseen > 0 ? 1 : 0;
}

/** First the plan that is known to notice. */
async function byPlans(bundle: string, { plan: known }: Mutation, database: DatabaseKind): Promise<string | undefined> {
  const stage = await buildStage(bundle, database);
  try {
    const plans = [...REGRESSIONS].sort((a, b) => Number(b.name === known) - Number(a.name === known));
    for (const { name, plan } of plans) {
      const { violations } = await run(stage, plan);
      const [violation] = violations;
      if (violation !== undefined) return `${violation.invariant}, plan ${name}`;
    }
    return undefined;
  } finally {
    await stage.close();
  }
}

interface Search extends Omit<MutationOptions, 'only' | 'seeds'> {
  bundle: string;
  seeds: number;
}

async function bySeeds({ bundle, database, workers, seeds, from, save }: Search): Promise<string | undefined> {
  let first: { seed: number; violation: Violation } | undefined;
  await runSeeds({
    bundle,
    database,
    from,
    count: seeds,
    ...(workers !== undefined && { workers }),
    take(results) {
      for (const { seed, violations } of results) {
        const [violation] = violations;
        if (violation !== undefined && (first === undefined || seed < first.seed)) first = { seed, violation };
      }
      return first === undefined;
    },
  });
  if (first === undefined) return undefined;
  const { seed, violation } = first;
  if (save !== undefined) {
    const stage = await buildStage(bundle, database);
    keep(save, violation.invariant, await shrink(stage, planOf(seed, database), violation));
    await stage.close();
  }
  return `${violation.invariant}, seed ${seed}`;
}
