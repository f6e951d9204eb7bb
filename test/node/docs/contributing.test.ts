import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { ROOT } from './pages.ts';

const page = readFileSync(join(ROOT, 'CONTRIBUTING.md'), 'utf8');

test('a dependency has an exact version', () => {
  expect(page).toContain('A dependency has an exact version');
  const kinds = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<
    'dependencies' | 'devDependencies',
    Record<string, string>
  >;
  const versions = Object.entries({ ...kinds.dependencies, ...kinds.devDependencies });
  expect(versions.length).toBeGreaterThan(20);
  expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+(?:-[\w.]+)?$/.test(version))).toEqual([]);
});

/** The layers as the page has them, from the outermost to the innermost, and where the linter forbids the way back. */
test('the linter forbids each layer to import from those to its left', () => {
  const line = /^(routes → .*)$/m.exec(page)?.[1] ?? '';
  const layers = line
    .replace(/\..*$/, '')
    .split(' → ')
    .map((names) => names.split(', '));
  expect(layers.length).toBeGreaterThan(4);
  const { overrides } = JSON.parse(readFileSync(join(ROOT, '.oxlintrc.json'), 'utf8')) as {
    overrides: { files: string[]; rules: Record<string, unknown> }[];
  };
  const rulesOf = (layer: string) =>
    JSON.stringify(overrides.filter(({ files }) => files.some((file) => new RegExp(`^src/${layer}[/.]`).test(file))));
  // Everything outside of its folder.
  const forbids = (layer: string, outer: string) =>
    rulesOf(layer).includes('"../**"') || new RegExp(String.raw`/${outer}/`).test(rulesOf(layer));
  const allowed = layers.flatMap((names, depth) =>
    names.flatMap((layer) =>
      layers
        .slice(0, depth)
        .flat()
        .filter((outer) => !forbids(layer, outer))
        .map((outer) => `${layer} may import ${outer}`),
    ),
  );
  expect(allowed).toEqual([]);
});

test('CI runs .ci/run, and that runs the check and the tests', () => {
  expect(page).toContain('CI runs `.ci/run`.');
  expect(readFileSync(join(ROOT, '.github/workflows/ci.yml'), 'utf8')).toMatch(/^ +- run: \.ci\/run$/m);
  expect(readFileSync(join(ROOT, '.ci/run'), 'utf8')).toMatch(/^npm ci\nnpm run check\nnpm test$/m);
});

test('the linter refuses empty blocks and `any`, as the page asks', () => {
  expect(page).toContain('No empty `catch`, no `any`');
  const { rules } = JSON.parse(readFileSync(join(ROOT, '.oxlintrc.json'), 'utf8')) as {
    rules: Record<string, unknown>;
  };
  expect([rules['no-empty'], rules['typescript/no-explicit-any'], rules['import/no-cycle']]).toEqual([
    'error',
    'error',
    ['error', { ignoreTypes: false }],
  ]);
});
