import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { ROOT, copyProject } from '../scripts/project.ts';

const run = (root: string, tool: string, ...args: string[]) =>
  execFileSync(join(ROOT, 'node_modules/.bin', tool), args, { cwd: root, encoding: 'utf8' });

test('the client compiles and passes the linter beside a route that has no entry in the contract yet', () => {
  using project = copyProject();
  cpSync(join(ROOT, '.oxlintrc.json'), join(project.root, '.oxlintrc.json'));
  const file = join(project.root, 'src/client/contract.ts');
  const contract = readFileSync(file, 'utf8');
  const undescribed = contract.replace(
    /^export interface Operations \{$/m,
    "$&\n  'GET /v1/new': { result: unknown };",
  );
  expect(undescribed).not.toBe(contract);
  writeFileSync(file, undescribed);
  run(project.root, 'tsc', '-p', 'src/client/tsconfig.json');
  expect(run(project.root, 'oxlint', '--type-aware', '--deny-warnings', 'src/client')).toContain('0 errors');
});
