import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { secretFaults, signingFaults } from '../../support/keyFaults.ts';
import { copyProject, runScript } from './project.ts';
import type { Project } from './project.ts';

let project: Project;
let path = '';
beforeAll(async () => {
  project = copyProject();
  path = join(project.root, 'keys.env');
  await runScript(project.root, 'keys', ['--to', path]);
});
afterAll(() => project[Symbol.dispose]());

/** wrangler builds everything, and uploads nothing. */
const deploy = (...args: string[]) => runScript(project.root, 'deploy', ['--dry-run', ...args]);

describe('npm run deploy', () => {
  it('hands everything on to wrangler once the keys have been tried', async () => {
    const { code, stdout } = await deploy('--secrets-file', path);
    expect(code).toBe(0);
    expect(stdout).toContain('--dry-run: exiting now.');
  });

  const bad = [
    ['an EC point off its curve', 'SIGNING_KEYS', signingFaults()['an EC point off its curve']!],
    ['a retired key that is the identity', 'SIGNING_KEYS', signingFaults()['a retired key that is the identity']!],
    ['all zeros', 'REFRESH_KEYS', secretFaults()['all zeros']!],
  ] as const;
  it.each(bad)(
    'refuses %s in %s, with the key’s id, before anything is built',
    async (_, name, { value, kid, says }) => {
      const good = readFileSync(path, 'utf8');
      const other = join(project.root, 'keys-other.env');
      const broken = good.replace(new RegExp(`^${name}=.*$`, 'm'), `${name}='${value}'`);
      writeFileSync(other, broken);
      const json = join(project.root, 'keys-other.json.env');
      writeFileSync(json, JSON.stringify({ [name]: value }));
      const ways = [['--secrets-file', other], [`--secrets-file=${other}`], ['--secrets-file', json]];
      for (const args of ways) {
        const { code, stdout, stderr } = await deploy(...args);
        expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
        expect(stderr).toContain(`Nothing was deployed.`);
        expect(stderr).toContain(`${name}: key ${kid} has`);
        expect(stderr).toContain(says);
      }
      // What is kept for the next rotation is what has been set.
      writeFileSync(path, broken);
      expect((await deploy()).stderr).toContain(`${name}: key ${kid} has`);
      writeFileSync(path, good);
    },
  );

  it('names a file that is not there', async () => {
    expect((await deploy('--secrets-file', 'none.env')).stderr).toBe('There is no none.env.\n');
  });
});
