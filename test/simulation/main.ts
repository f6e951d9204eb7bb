import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { bundleWorker } from './bundle.ts';
import type { DatabaseKind } from './database.ts';
import type { Violation } from './model.ts';
import { tryMutations } from './mutate.ts';
import { planOf } from './planOf.ts';
import type { Plan } from './plan.ts';
import { runSeeds } from './pool.ts';
import { keep } from './regressions.ts';
import { traceText, violationText } from './report.ts';
import { run } from './run.ts';
import { shrink } from './shrink.ts';
import { buildStage } from './world.ts';
import type { Stage } from './world.ts';

const HELP = `npm run simulate -- [options]

  --seed N           plays one seed, prints its trace, and shrinks it when it fails
  --seeds N          plays so many seeds on all cores (default 300; with --mutations at most, default 2000)
  --from N           the first of them (default 1)
  --minutes M        stops after so many minutes
  --database NAME    d1 (default) or postgres
  --invariant NAME   looks at this invariant only
  --plan FILE        the same for a plan that was kept, such as test/simulation/regressions/NAME.json
  --save NAME        keeps the shrunk plan of --seed or --plan, or of the seed that notices a mutation, as a regression test
  --full             prints the trace of --seed as it is, not shrunk
  --json             prints only { seeds, steps, violations: [{ seed, invariant, trace }] }
  --mutations        breaks the source on purpose, and says which kept plan or which seed notices (--seeds 0: plans only)
  --only PATTERN     tries only the mutations whose names match this regular expression
  --workers N        cores to use (default all)
`;

/** With --json the trace of this many violations is shrunk; of the others it is whole. */
const SHRUNK = 3;

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    from: { type: 'string', default: '1' },
    minutes: { type: 'string' },
    database: { type: 'string', default: 'd1' },
    invariant: { type: 'string' },
    plan: { type: 'string' },
    save: { type: 'string' },
    workers: { type: 'string' },
    full: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    mutations: { type: 'boolean', default: false },
    only: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});

const database = databaseOf(values.database);
const wanted = ({ invariant }: Violation) => values.invariant === undefined || invariant === values.invariant;

async function main(): Promise<number> {
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const workers = values.workers === undefined ? undefined : Number(values.workers);
  if (values.mutations) {
    const seeds = values.seeds === undefined ? undefined : Number(values.seeds);
    return tryMutations({
      database,
      workers,
      seeds,
      from: Number(values.from),
      only: values.only === undefined ? undefined : new RegExp(values.only),
      save: values.save,
    });
  }
  const bundle = await bundleWorker(database);
  const plan = planGiven();
  if (plan === undefined) return manySeeds(bundle);
  const stage = await buildStage(bundle, database);
  const code = await onePlan(stage, plan);
  await stage.close();
  return code;
}

function databaseOf(name: string): DatabaseKind {
  if (name === 'd1' || name === 'postgres') return name;
  throw new Error(`--database ${name}: d1 or postgres`);
}

function planGiven(): Plan | undefined {
  if (values.plan !== undefined) return (JSON.parse(readFileSync(values.plan, 'utf8')) as { plan: Plan }).plan;
  return values.seed === undefined ? undefined : planOf(Number(values.seed), database);
}

async function onePlan(stage: Stage, plan: Plan): Promise<number> {
  const { seed } = plan;
  const violations = (await run(stage, plan)).violations.filter(wanted);
  const [first] = violations;
  const shown = first === undefined || values.full ? plan : await shrink(stage, plan, first);
  const result = await run(stage, shown, { tracing: true });
  console.log(traceText(shown, result));
  if (first === undefined) {
    console.log(`seed ${seed}: ${result.steps} steps, no violation`);
    return 0;
  }
  console.log(
    `seed ${seed}: ${violations.length} violations, the first of ${first.invariant}; ${plan.steps.length} steps of the plan, shrunk to ${shown.steps.length}`,
  );
  if (values.save !== undefined) console.log(`written: ${keep(values.save, first.invariant, shown)}`);
  return 1;
}

async function manySeeds(bundle: string): Promise<number> {
  const count = Number(values.seeds ?? 300);
  const from = Number(values.from);
  const startMs = Date.now();
  const failed = new Map<string, { seed: number; violation: Violation }>();
  let steps = 0;
  let done = 0;
  const done_ = await runSeeds({
    bundle,
    database,
    from,
    count,
    ...(values.minutes !== undefined && { untilMs: startMs + Number(values.minutes) * 60_000 }),
    ...(values.workers !== undefined && { workers: Number(values.workers) }),
    take(results) {
      for (const { seed, steps: taken, violations } of results) {
        steps += taken;
        done += 1;
        for (const violation of violations.filter(wanted)) {
          const key = `${seed} ${violation.invariant}`;
          if (failed.has(key)) continue;
          failed.set(key, { seed, violation });
          if (!values.json) console.log(`seed ${seed} ${violationText(violation)}`);
        }
      }
      if (!values.json && process.stderr.isTTY) process.stderr.write(`\r${done} of ${count} seeds, ${steps} steps `);
      return true;
    },
  });
  const found = [...failed.values()].sort((a, b) => a.seed - b.seed);
  if (values.json) {
    const stage = found.length > 0 ? await buildStage(bundle, database) : undefined;
    const violations = [];
    for (const [index, { seed, violation }] of found.entries()) {
      const { invariant } = violation;
      const plan = index < SHRUNK ? await shrink(stage!, planOf(seed, database), violation) : planOf(seed, database);
      violations.push({ seed, invariant, trace: traceText(plan, await run(stage!, plan, { tracing: true })) });
    }
    await stage?.close();
    console.log(JSON.stringify({ seeds: done_, steps, violations }));
  } else {
    const seconds = (Date.now() - startMs) / 1_000;
    console.log(
      `${done_} seeds, ${steps} steps, ${seconds.toFixed(1)} s; violations in ${new Set(found.map(({ seed }) => seed)).size} seeds`,
    );
    for (const [invariant, seeds] of Map.groupBy(found, ({ violation }) => violation.invariant)) {
      console.log(
        `  ${invariant}: ${seeds.length} seeds, the first ${seeds
          .slice(0, 8)
          .map(({ seed }) => seed)
          .join(', ')}`,
      );
    }
  }
  return found.length > 0 ? 1 : 0;
}

process.exitCode = await main();
