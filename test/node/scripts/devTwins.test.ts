import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

import { announce } from '../../../src/scripts/devTwins.ts';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gatehouse-twins-'));
  file = join(folder, 'dev.json');
});
afterEach(() => rmSync(folder, { recursive: true }));

function started(embeddedRedis = true, database = 'D1') {
  const lines: string[] = [];
  const end = announce({ url: 'http://127.0.0.1:1', embeddedRedis, database }, (line) => lines.push(line), file);
  return { lines, end };
}

/** @param pid of a process that runs, or does not */
const anotherRuns = (pid: number, embeddedRedis = true) =>
  writeFileSync(file, JSON.stringify({ pid, url: 'http://127.0.0.1:8787', embeddedRedis, database: 'D1' }));

test('the first one says nothing, and leaves nothing behind', () => {
  const { lines, end } = started();
  end();
  expect([lines, readdirSync(folder)]).toEqual([[], []]);
});

test('the second one says where the first is, and that they share the database but not Redis', () => {
  anotherRuns(process.ppid);
  expect(started().lines.join('\n')).toMatch(/http:\/\/127\.0\.0\.1:8787.*same database.*REDIS_URL/s);
});

test('two on one Redis server get along', () => {
  anotherRuns(process.ppid, false);
  expect(started(false).lines).toEqual([]);
});

test('two with databases of their own get along', () => {
  anotherRuns(process.ppid);
  expect(started(true, 'PostgreSQL, at 127.0.0.1:5432/app').lines).toEqual([]);
});

test.each([
  [
    'of a process that has gone',
    JSON.stringify({ pid: 2 ** 22 + 1, url: 'http://127.0.0.1:8787', embeddedRedis: true, database: 'D1' }),
  ],
  ['cut off in the middle', '{"pid":'],
])('a file %s means nothing', (_, text) => {
  writeFileSync(file, text);
  expect(started().lines).toEqual([]);
});

test('the end of the first leaves the entry of the second', () => {
  const { end } = started();
  anotherRuns(process.ppid);
  end();
  expect(readdirSync(folder)).toEqual(['dev.json']);
});
