import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';

import { UserError } from '../../../src/scripts/cli.ts';
import { cachingProblem, hyperdriveId } from '../../../src/scripts/hyperdrive.ts';

const TOML = readFileSync(new URL('../../../wrangler.toml', import.meta.url), 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'gatehouse-'));
afterAll(() => rmSync(folder, { recursive: true }));

function idIn(toml: string, environment = ''): string | undefined {
  const file = join(folder, 'wrangler.toml');
  writeFileSync(file, toml);
  return hyperdriveId(file, environment);
}

test('a build is for PostgreSQL where wrangler.toml binds HYPERDRIVE, and for D1 as it is delivered', () => {
  expect(idIn(TOML)).toBeUndefined();
  const uncommented = TOML.replace('# [[hyperdrive]]', '[[hyperdrive]]')
    .replace('# binding = "HYPERDRIVE"', 'binding = "HYPERDRIVE"')
    .replace(/# id = "the id that[^"]*"/, 'id = "57b7076f"');
  expect(idIn(uncommented)).toBe('57b7076f');
  expect(idIn(uncommented, 'staging')).toBeUndefined();
  expect(idIn('[[hyperdrive]]\nbinding = "OTHER"\nid = "1"')).toBeUndefined();
  const staging = '[[env.staging.hyperdrive]]\nid = "2"\nbinding = "HYPERDRIVE"\n[[d1_databases]]\nid = "3"';
  expect([idIn(staging, 'staging'), idIn(staging)]).toEqual(['2', undefined]);
});

test.each([
  ['inline', 'hyperdrive = [{ binding = "HYPERDRIVE", id = "7" }]'],
  [
    'inline, of several on lines of their own',
    'hyperdrive = [\n{ binding = "OTHER", id = "1" }, # first\n{ id = \'7\', binding = "HYPERDRIVE" },\n]',
  ],
  ['with a quoted name', '[["hyperdrive"]]\n"binding" = "HYPERDRIVE"\n\'id\' = "7"'],
  ['with escapes', '[["hyper\\u0064rive"]]\nbinding = "HYPER\\u0044RIVE"\nid = "7"'],
  ['with texts of several lines', '[[hyperdrive]]\nbinding = """\nHYPERDRIVE"""\nid = """\n7"""'],
  ['with spaces in the header', '[[ hyperdrive ]]  # the database\nbinding="HYPERDRIVE"\nid="7"'],
])('a binding that is written %s is found', (_, toml) => {
  expect(idIn(toml)).toBe('7');
  expect(idIn(`# ${toml.replaceAll('\n', '\n# ')}`)).toBeUndefined();
});

test('an environment in the inline form has its own', () => {
  const toml = 'env.staging = { hyperdrive = [{ binding = "HYPERDRIVE", id = "7" }] }';
  expect([idIn(toml, 'staging'), idIn(toml)]).toEqual(['7', undefined]);
});

test('a file that wrangler cannot read is refused in one line', () => {
  expect(() => idIn('hyperdrive = [{ binding = ')).toThrow(UserError);
  expect(() => idIn('hyperdrive = [{ binding = ')).toThrow(/^wrangler cannot read wrangler\.toml: [^\n]+$/);
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
