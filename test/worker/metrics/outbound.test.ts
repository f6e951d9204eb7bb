import { expect, test } from 'vitest';

import { createInstruments } from '../../../src/metrics/instruments';
import { Outbound } from '../../../src/metrics/outbound';
import type { Lot } from '../../../src/metrics/outbound';

const STEP_MS = 10_000;

test('of a long time without Redis the oldest counts are merged, the newest keep their time, and none is lost', () => {
  const instruments = createInstruments();
  let nowMs = 0;
  const outbound = new Outbound({ instruments, intervalMs: STEP_MS, nowMs, id: 'one' });
  const steps = 400;
  for (let step = 0; step < steps; step += 1) {
    nowMs += STEP_MS;
    outbound.touch(nowMs);
    instruments.authEvents.count('login');
  }
  nowMs += STEP_MS;
  outbound.touch(nowMs);

  const counted = (lots: readonly Lot[]) =>
    lots
      .flatMap(({ counts }) => Object.values(counts))
      .flat()
      .reduce((sum, value) => sum + value, 0);
  const { pending } = outbound;
  expect(counted(pending)).toBe(steps);
  // A quarter of an hour in steps of ten seconds.
  expect(pending).toHaveLength(90);
  expect(pending.slice(1).map(({ counts }) => counted([{ seq: 0, atMs: 0, counts }]))).toEqual(
    Array.from({ length: 89 }, () => 1),
  );
  expect(pending.at(-1)?.atMs).toBe(steps * STEP_MS);
});
