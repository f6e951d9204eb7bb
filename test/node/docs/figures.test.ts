import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { pages, ROOT } from './pages.ts';

const textOf = (name: string) => pages.find((page) => page.name === name)!.text;
const figuresIn = (name: string, place: RegExp) => (place.exec(textOf(name)) ?? []).slice(1).map(Number);

const GET_P50 = /p50 with 20 ms to Redis \| (\d+) ms, .*documentation (\d+) ms/;
const MOST_ADMITTED = /1\.0; theirs ([\d.]+) \(sliding\) and ([\d.]+) \(fixed\), hono-rate-limiter ([\d.]+)/;
const CACHE_HIT = /^\| hit with 3 tags \| (\d+), (\d+) \| .* \| (\d+), (\d+) \| has no tags \| (\d+), (\d+) \|/m;

/**
 * Measured figures that stand on another page too, each with the place that it is taken from. `scale`: how many of the units there
 * are one of the copy's.
 */
const COPIES: [page: string, copy: RegExp, measured: RegExp, from?: { page?: string; scale?: number }][] = [
  ['README.md', /cached GET \(p50\) \| (\d+) ms \| (\d+) ms/, GET_P50],
  ['docs/decisions/one-pipeline.md', /(\d+) ms \(p50\) for .* GET,\s(\d+) ms for/, GET_P50],
  [
    'README.md',
    /CPU of the Worker \| ([\d.]+) ms \| ([\d.]+) ms; one bare `fetch` ([\d.]+) ms/,
    /microseconds a request \| (\d+);.* that build (\d+); one bare `fetch` (\d+)/,
    { scale: 1_000 },
  ],
  [
    'README.md',
    /@upstash\/ratelimit ([\d.]+) \(sliding\), hono-rate-limiter ([\d.]+)/,
    /theirs ([\d.]+) \(sliding\).*hono-rate-limiter ([\d.]+)/,
  ],
  ['docs/rate-limits.md', /sliding ([\d.]+), fixed ([\d.]+); hono-rate-limiter ([\d.]+)/, MOST_ADMITTED],
  [
    'docs/decisions/true-windows-and-leases.md',
    /([\d.]+) for `@upstash\/ratelimit`'s sliding window, ([\d.]+) for\s`hono-rate-limiter`/,
    /theirs ([\d.]+) \(sliding\).*hono-rate-limiter ([\d.]+)/,
  ],
  [
    'README.md',
    /a refresh \(p50, trips\) \| (\d+) ms, 1 \| better-auth (\d+) ms/,
    /p50 of a refresh .* \| (\d+) ms; theirs (\d+) ms/,
  ],
  ['README.md', /better-auth \d+ ms, (\d+)/, /trips of a refresh \| 1, .* theirs (\d+)/],
  [
    'README.md',
    /3 tags \(p50, trips\) \| (\d+) ms, (\d+) \| bentocache over Redis (\d+) ms, (\d+); cacheable (\d+) ms, (\d+)/,
    CACHE_HIT,
  ],
  ['README.md', /serves hits from memory in ([\d.]+) ms/, /^\| hit \| \d+, \d+ \| ([\d.]+), 0/m],
  [
    'docs/decisions/redis-over-rest.md',
    /serves ([\d.]+) to ([\d.]+)\stimes the pipelines at 16 connections/,
    /^\| \| 16 \| 2\.\d to [\d.]+ \| ([\d.]+) to ([\d.]+) \|/m,
    { page: 'docs/gateway.md' },
  ],
];
test.each(COPIES)(
  '%s has the measured figures: %s',
  (page, copy, measured, { page: from = 'docs/benchmarks.md', scale = 1 } = {}) => {
    const shown = figuresIn(page, copy);
    expect(shown.length).toBeGreaterThan(0);
    expect(shown).toEqual(figuresIn(from, measured).map((figure) => Math.round((figure / scale) * 100) / 100));
  },
);

test('docs/clients.md has the client’s own numbers', () => {
  const read = (name: string) => readFileSync(join(ROOT, 'src/client', name), 'utf8');
  const secondsOf = (source: string, name: string) =>
    Number(new RegExp(String.raw`\b${name} = ([\d_]+)`).exec(source)?.[1]?.replaceAll('_', '')) / 1_000;
  const page = textOf('docs/clients.md');
  expect(page).toContain(`\`retryBudgetMs\` (${secondsOf(read('client.ts'), 'retryBudgetMs')} s)`);
  expect(page).toContain(`\`timeoutMs\` (${secondsOf(read('client.ts'), 'timeoutMs')} s)`);
  expect(page).toContain(`refreshes ${secondsOf(read('clock.ts'), 'MARGIN_MS')} seconds before`);
});
