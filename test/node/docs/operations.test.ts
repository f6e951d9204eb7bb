import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { placeholders } from '../../../src/scripts/placeholders.ts';
import { pages, ROOT } from './pages.ts';

const { text } = pages.find(({ name }) => name === 'docs/operations.md')!;

test('docs/operations.md shows an example of wrangler.toml as npm run deploy refuses it', () => {
  const refused = placeholders(readFileSync(join(ROOT, 'wrangler.toml'), 'utf8'), '');
  const shown = Array.from(text.matchAll(/^ +(line \d+: .*)$/gm), ([, line]) => line);
  expect(shown).toHaveLength(1);
  expect(refused).toEqual(expect.arrayContaining(shown));
});

test('docs/operations.md has the console’s words for an outage of Redis', () => {
  const verdict = readFileSync(join(ROOT, 'src/console/verdict.ts'), 'utf8');
  const [, words = ''] = /The console's overview says "([^"]+)"/.exec(text) ?? [];
  expect(words).toMatch(/^Redis is away/);
  expect(verdict).toContain(words);
});
