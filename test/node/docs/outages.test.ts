import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { ROOT } from './pages.ts';

const page = readFileSync(join(ROOT, 'docs/outages.md'), 'utf8');

/** What the first column of the table of `Gatehouse-Degraded` names. */
function inTable(): string[] {
  const [, table = ''] = /^\| `Gatehouse-Degraded` \|.*\n\| --- .*\n((?:\|.*\n)+)/m.exec(page) ?? [];
  return Array.from(table.matchAll(/^\| ([^|]*) \|/gm), ([, cell = '']) => cell)
    .flatMap((cell) => Array.from(cell.matchAll(/`([^`]+)`/g), ([, value = '']) => value))
    .sort();
}

function sourcesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return sourcesBelow(path);
    return entry.name.endsWith('.ts') ? [readFileSync(path, 'utf8')] : [];
  });
}

/** What the services call `degraded` with. `${whenUnavailable}` stands for the members of the failure policy. */
function inSource(): string[] {
  const source = sourcesBelow(join(ROOT, 'src/services')).join('\n');
  const policies = (type: string) => {
    const [, union = ''] = new RegExp(`type ${type} = ([^;]+);`).exec(source) ?? [];
    return Array.from(union.matchAll(/'(\w+)'/g), ([, policy = '']) => policy);
  };
  const types: Record<string, string> = { limiter: 'LimiterFailurePolicy', revocation: 'RevocationFailurePolicy' };
  const values = Array.from(source.matchAll(/\bdegraded?\(\s*['`]([^'`]+)['`]/g), ([, value = '']) => value);
  return [
    ...new Set(
      values.flatMap((value) => {
        const [name = '', policy] = value.split('=');
        if (policy !== '${whenUnavailable}') return [value];
        return policies(types[name] ?? '').map((member) => `${name}=${member}`);
      }),
    ),
  ].sort();
}

test('the table of Gatehouse-Degraded has each value that the services set, and no other', () => {
  expect(inSource()).toContain('limiter=local');
  expect(inSource()).toContain('revocation=closed');
  expect(inTable()).toEqual(inSource());
});

test('every call that degrades states its value in place', () => {
  const calls = sourcesBelow(join(ROOT, 'src'))
    .flatMap((source) => Array.from(source.matchAll(/\bdegraded?\(([^)]*)\)/g), ([, argument = '']) => argument.trim()))
    .filter((argument) => !/^['`]/.test(argument));
  // The declaration, and the two that hand on what they are given.
  expect([...new Set(calls)].sort()).toEqual(['what', 'what: string']);
});
