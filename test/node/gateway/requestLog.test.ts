import { expect, test } from 'vitest';
import type { LogEntry } from '../../../src/gateway/log.ts';
import { RequestLog } from '../../../src/gateway/requestLog.ts';

const entry = (status: number) => ({ requestId: '1', method: 'POST', kind: 'command', status, durationMs: 1 });

test('failures are logged one by one up to ten a second, and counted beyond', () => {
  const lines: LogEntry[] = [];
  const log = new RequestLog((line) => lines.push(line), 'failures');
  for (let n = 0; n < 25; n += 1) log.add(entry(503), 1_000 + n);
  expect(lines.map(({ event }) => event)).toEqual(Array.from({ length: 10 }, () => 'request'));
  log.add(entry(500), 2_000);
  expect(lines.slice(10)).toMatchObject([{ event: 'failures_not_logged', count: 15 }, { event: 'request' }]);
});

test('requests that did not fail are all logged where that is asked for', () => {
  const lines: LogEntry[] = [];
  const log = new RequestLog((line) => lines.push(line), 'all');
  for (let n = 0; n < 25; n += 1) log.add(entry(200), 1_000);
  expect(lines).toHaveLength(25);
});
