import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { createKeys } from '../../../src/redis/keys';
import { pages, ROOT } from './pages.ts';

const textOf = (name: string) => pages.find((page) => page.name === name)!.text.replaceAll(/\s+/g, ' ');
const shown = (figure: number) => figure.toLocaleString('en');

/** Bounds that no setting changes: the page's words, `#` for each number, and where the code has them. */
const BOUNDS: [page: string, words: string, file: string, places: RegExp, unit?: number][] = [
  [
    'docs/busy-callers.md',
    '# tokens in # MiB',
    'src/services/memory/isolateMemory.ts',
    /revocations: new Remembered\(\{ maxEntries: ([\d_]+), maxBytes: (\d+) \* 2 \*\* 20/,
  ],
  [
    'docs/busy-callers.md',
    '# cached entries in # MiB',
    'src/services/cache/entryMemory.ts',
    /new Remembered<Kept>\(\{ maxEntries: ([\d_]+), maxBytes: (\d+) \* 2 \*\* 20/,
  ],
  ['docs/busy-callers.md', 'leases of # counters', 'src/services/rateLimit/leases.ts', /MAX_COUNTERS = ([\d_]+)/],
  ['docs/rate-limits.md', '# counters an isolate', 'src/services/rateLimit/local.ts', /maxCounters = ([\d_]+)/],
  ['docs/rate-limits.md', 'share # counters a policy', 'src/services/rateLimit/local.ts', /SHARED_PER_POLICY = (\d+)/],
  ['docs/rate-limits.md', 'for # s at most', 'src/services/rateLimit/blocks.ts', /MAX_BLOCK_MS = ([\d_]+)/, 1_000],
  ['docs/rate-limits.md', 'charged, # at most', 'src/redis/scripts/rateLimitState.ts', /math\.min\((\d+), most/],
  ['docs/warming.md', 'a slice at a time (# items', 'src/services/warming.service.ts', /SLICE_ITEMS = (\d+)/],
  ['docs/warming.md', 'warms # items at most', 'src/services/warming.service.ts', /RUN_ITEMS = (\d+)/],
  ['docs/warming.md', ', # items side by side', 'src/services/warming.service.ts', /concurrency = (\d+)/],
  ['docs/console.md', 'up to # items a minute', 'src/services/warming.service.ts', /SLICE_ITEMS = (\d+)/],
  ['docs/outages.md', 'then deleted, # a statement', 'src/services/outbox/rows.ts', /PURGE\w* = ([\d_]+)/],
  ['docs/outages.md', '# s of work', 'src/services/outbox.service.ts', /RUN_MS = ([\d_]+)/, 1_000],
  [
    'docs/decisions/scrypt-queue.md',
    'a pause of # ms between them',
    'src/services/password/hashQueue.ts',
    /GAP_MS = (\d+)/,
  ],
  [
    'docs/decisions/scrypt-queue.md',
    'last asked (every # ms)',
    'src/services/password/hashQueue.ts',
    /POLL_MS = (\d+)/,
  ],
  ['docs/cached-responses.md', 'at most `maxBytes` (#)', 'src/middlewares/cached.middleware.ts', /maxBytes = ([\d_]+)/],
  [
    'docs/idempotency.md',
    'longer bodies are not kept. Default #',
    'src/middlewares/idempotent.middleware.ts',
    /maxBytes = ([\d_]+)/,
  ],
];

test.each(BOUNDS)('%s: %s', (page, words, file, places, unit = 1) => {
  const [, ...figures] = places.exec(readFileSync(join(ROOT, file), 'utf8')) ?? [];
  expect(figures.length).toBeGreaterThan(0);
  const stated = figures.reduce(
    (text, figure) => text.replace('#', shown(Number(figure.replaceAll('_', '')) / unit)),
    words,
  );
  expect(textOf(page)).toContain(stated);
});

test('the decision on the outbox counts the heartbeats', () => {
  expect(createKeys('app', 'secret').heartbeats).toHaveLength(16);
  expect(textOf('docs/decisions/d1-truth-and-outbox.md')).toContain('Sixteen heartbeat keys');
});
