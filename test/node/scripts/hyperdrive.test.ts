import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

import { cachingProblem, hyperdriveId } from '../../../src/scripts/hyperdrive.ts';

const TOML = readFileSync(new URL('../../../wrangler.toml', import.meta.url), 'utf8');

test('a build is for PostgreSQL where wrangler.toml binds HYPERDRIVE, and for D1 as it is delivered', () => {
  expect(hyperdriveId(TOML, '')).toBeUndefined();
  const uncommented = TOML.replace('# [[hyperdrive]]', '[[hyperdrive]]')
    .replace('# binding = "HYPERDRIVE"', 'binding = "HYPERDRIVE"')
    .replace(/# id = "the id that[^"]*"/, 'id = "57b7076f"');
  expect(hyperdriveId(uncommented, '')).toBe('57b7076f');
  expect(hyperdriveId('[[hyperdrive]]\nbinding = "OTHER"\nid = "1"', '')).toBeUndefined();
  const staging = '[[env.staging.hyperdrive]]\nid = "2"\nbinding = "HYPERDRIVE"\n[[d1_databases]]\nid = "3"';
  expect([hyperdriveId(staging, 'staging'), hyperdriveId(staging, '')]).toEqual(['2', undefined]);
  expect(hyperdriveId(uncommented, 'staging')).toBeUndefined();
});

test.each([
  ['without its cache', '{"id":"1","caching":{"disabled":true}}', undefined],
  ['after a banner', 'wrangler 4\n---\n{"caching":{"disabled":true}}', undefined],
  ['with the default cache', '{"id":"1","caching":{"disabled":false}}', /would serve what was revoked/],
  ['that says nothing of it', '{"id":"1"}', /would serve what was revoked/],
  ['that is not there', 'An error', /did not show/],
])('a configuration %s', (_, shown, problem) => {
  if (problem === undefined) expect(cachingProblem(shown)).toBeUndefined();
  else expect(cachingProblem(shown)).toMatch(problem);
});
