import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';

import { ROOT, bundleWorker } from './bundle.ts';
import { MUTATIONS } from './mutations.ts';
import { planOf } from './plan.ts';
import type { Plan } from './plan.ts';
import { traceText, violationText } from './report.ts';
import { run } from './run.ts';
import { buildStage } from './world.ts';
import type { Stage } from './world.ts';

const SEEDS = 200;
/** Of so many failing seeds the trace's end is shown: it replays with `npm run simulate -- --seed N`. */
const SHOWN = 10;

const REGRESSIONS = fileURLToPath(new URL('./regressions', import.meta.url));

let stage: Stage;

beforeAll(async () => {
  stage = await buildStage(await bundleWorker());
});

test('a plan that is played again gives the same trace, whatever was played before', async () => {
  const plan = planOf(4);
  const first = traceText(plan, await run(stage, plan, { tracing: true }));
  await run(stage, planOf(5));
  const other = await buildStage(await bundleWorker());
  expect(traceText(plan, await run(stage, plan, { tracing: true }))).toBe(first);
  expect(traceText(plan, await run(other, plan, { tracing: true }))).toBe(first);
});

test(`no invariant is violated in ${SEEDS} seeds`, { timeout: 1_200_000 }, async () => {
  const failed: string[] = [];
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const { violations } = await run(stage, planOf(seed));
    const [first] = violations;
    if (first !== undefined) failed.push(`seed ${seed} ${violationText(first)}`);
  }
  expect(failed.slice(0, SHOWN)).toEqual([]);
});

test('each mutation of `npm run simulate -- --mutations` still finds its text', () => {
  const counts = MUTATIONS.map(({ name, file, before }) => ({
    name,
    found: readFileSync(`${ROOT}${file}`, 'utf8').split(before).length - 1,
  }));
  expect(counts.filter(({ found }) => found !== 1)).toEqual([]);
});

/** Plans that once failed, shrunk: `npm run simulate -- --seed N --save NAME` writes them. */
const regressions = readdirSync(REGRESSIONS)
  .filter((name) => name.endsWith('.json'))
  .map((name) => {
    const { plan } = JSON.parse(readFileSync(`${REGRESSIONS}/${name}`, 'utf8')) as { plan: Plan };
    return { name: name.replace(/\.json$/, ''), plan };
  });

test.for(regressions)('regression: $name', async ({ plan }) => {
  const { violations } = await run(stage, plan);
  expect(violations.map(violationText)).toEqual([]);
});
