import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { bundleWorker, ROOT } from './bundle.ts';
import { MUTATIONS } from './mutations.ts';
import { planOf } from './planOf.ts';
import { REGRESSIONS } from './regressions.ts';
import { traceText, violationText } from './report.ts';
import { run } from './run.ts';
import { buildStage } from './world.ts';
import type { Stage } from './world.ts';

const SEEDS = 200;
/** Of so many failing seeds the trace's end is shown: it replays with `npm run simulate -- --seed N`. */
const SHOWN = 10;

let stage: Stage;

beforeAll(async () => {
  stage = await buildStage(await bundleWorker('d1'), 'd1');
});

afterAll(() => stage.close());

test('a plan that is played again gives the same trace, whatever was played before', async () => {
  const plan = planOf(4, 'd1');
  const first = traceText(plan, await run(stage, plan, { tracing: true }));
  await run(stage, planOf(5, 'd1'));
  const other = await buildStage(await bundleWorker('d1'), 'd1');
  expect(traceText(plan, await run(stage, plan, { tracing: true }))).toBe(first);
  expect(traceText(plan, await run(other, plan, { tracing: true }))).toBe(first);
});

test(`no invariant is violated in ${SEEDS} seeds`, { timeout: 1_200_000 }, async () => {
  const failed: string[] = [];
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const { violations } = await run(stage, planOf(seed, 'd1'));
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

test('each mutation names a kept plan', () => {
  const kept = new Set(REGRESSIONS.map(({ name }) => name));
  expect(MUTATIONS.filter(({ plan = '' }) => !kept.has(plan))).toEqual([]);
});

test.for(REGRESSIONS)('regression: $name', async ({ plan }) => {
  const { violations } = await run(stage, plan);
  expect(violations.map(violationText)).toEqual([]);
});
