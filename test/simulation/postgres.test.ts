import { afterAll, beforeAll, expect, test } from 'vitest';

import { bundleWorker } from './bundle.ts';
import { ACCOUNTS, ISOLATES } from './plan.ts';
import type { Fault, Plan, Step } from './plan.ts';
import { planOf } from './planOf.ts';
import { REGRESSIONS } from './regressions.ts';
import { traceText, violationText } from './report.ts';
import { run } from './run.ts';
import { buildStage } from './world.ts';
import type { Stage } from './world.ts';

/** A few, since PostgreSQL takes its time to start: `npm run simulate -- --database postgres` plays more. */
const SEEDS = 10;

type Faulty = Fault extends infer One ? (One extends Fault ? Omit<One, 'at'> : never) : never;

let stage: Stage;

beforeAll(async () => {
  stage = await buildStage(await bundleWorker('postgres'), 'postgres');
});

afterAll(() => stage.close());

test(`no invariant is violated in ${SEEDS} seeds`, async () => {
  const failed: string[] = [];
  for (let seed = 1; seed <= SEEDS; seed += 1) {
    const { violations } = await run(stage, planOf(seed, 'postgres'));
    const [first] = violations;
    if (first !== undefined) failed.push(`seed ${seed} ${violationText(first)}`);
  }
  expect(failed).toEqual([]);
});

const FOR_MS = 10_000;

test.for<[string, Faulty, RegExp]>([
  ['a conflict with another transaction', { do: 'database-conflicts', forMs: FOR_MS }, /[,=] 40(?:001|P01) simulated/],
  [
    'a connection that is lost in the middle of a transaction',
    { do: 'database', mode: 'cuts', forMs: FOR_MS },
    /= BEGIN, .+ \(connection lost, rolled back\)/,
  ],
  [
    'a connection that is lost after a commit',
    { do: 'database', mode: 'flaky', forMs: FOR_MS },
    /COMMIT \(connection lost\)/,
  ],
  ['a statement that fails', { do: 'database-fails', count: 20 }, /[,=] (?:53200|57014|XX000) simulated/],
])('no invariant is violated by %s', async ([, fault, pattern]) => {
  const busy = Array.from({ length: 80 }, (_, index): Step => {
    const [isolate, account] = [index % ISOLATES, index % ACCOUNTS];
    return { do: 'rename', at: 1_000 + (index * FOR_MS) / 80, isolate, account, device: 0 };
  });
  const clocks = Array.from({ length: ISOLATES }, () => ({ offsetMs: 0, driftPpm: 0 }));
  const plan: Plan = { seed: 1, clocks, lengthMs: 20_000, steps: [{ ...fault, at: 1_000 }, ...busy] };
  const { violations, lines } = await run(stage, plan, { tracing: true });
  expect(violations.map(violationText)).toEqual([]);
  expect(lines.filter((line) => pattern.test(line)).length).toBeGreaterThan(2);
});

test('a plan that is played again gives the same trace, whatever was played before', async () => {
  const plan = planOf(8, 'postgres');
  const first = traceText(plan, await run(stage, plan, { tracing: true }));
  await run(stage, planOf(5, 'postgres'));
  expect(traceText(plan, await run(stage, plan, { tracing: true }))).toBe(first);
});

test.for(REGRESSIONS.filter(({ plan: { steps } }) => steps.some(({ do: what }) => what.startsWith('database'))))(
  'regression: $name',
  async ({ plan }) => {
    const { violations } = await run(stage, plan);
    expect(violations.map(violationText)).toEqual([]);
  },
);
