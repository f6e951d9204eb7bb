import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { secretFaults, signingFaults } from '../../support/keyFaults.ts';
import { copyProject, runScript } from './project.ts';
import type { Project } from './project.ts';

let project: Project;
let path = '';
let toml = '';
/** With values of their own in production; those of staging are examples. */
let complete = '';
/** As delivered, with examples in the place of values. */
let delivered = '';

const STAGING = `
[env.staging.vars]
ISSUER = "https://api.staging.gatehouse.dev"
AUDIENCE = "gatehouse-staging"
MAIL_FROM = "hello@your.domain"

[[env.staging.d1_databases]]
binding = "DB"
database_name = "gatehouse-staging"
database_id = "the id that wrangler d1 create gatehouse-staging prints"
`;

beforeAll(async () => {
  project = copyProject();
  toml = join(project.root, 'wrangler.toml');
  delivered = readFileSync(toml, 'utf8');
  complete = delivered
    .replace('https://gatehouse.example', 'https://api.gatehouse.dev')
    .replace(/database_id = ".*"/, `database_id = "${crypto.randomUUID()}"`);
  writeFileSync(toml, complete + STAGING);
  path = join(project.root, 'keys.env');
  await runScript(project.root, 'keys', ['--to', path]);
});
afterAll(() => project[Symbol.dispose]());

/** wrangler builds everything, and uploads nothing. */
const deploy = (...args: string[]) => runScript(project.root, 'deploy', ['--dry-run', ...args]);

describe('npm run deploy', () => {
  it('hands everything on to wrangler once the keys have been tried; without --env, production', async () => {
    const { code, stdout, stderr } = await deploy('--secrets-file', path);
    expect(code).toBe(0);
    expect(stdout).toContain('--dry-run: exiting now.');
    expect(stdout).toContain('https://api.gatehouse.dev');
    expect(stderr).toContain(
      `# ${path} has no UPSTASH_REDIS_REST_URL, UPSTASH_REDIS_REST_TOKEN: right only if the deployed Worker has them`,
    );
    // wrangler warns when several environments exist and none is named.
    expect(stdout + stderr).not.toContain('environment');
  });

  it('refuses the examples of wrangler.toml, each with its line and what to put there', async () => {
    const lineOf = (text: string, of: string) => text.slice(0, text.indexOf(of)).split('\n').length;
    writeFileSync(toml, delivered + STAGING);
    try {
      const production = await deploy('--secrets-file', path);
      expect(production).toMatchObject({ code: 1, stdout: '' });
      expect(production.stderr.trimEnd().split('\n')).toEqual([
        'Nothing was deployed. wrangler.toml has examples in the place of values:',
        expect.stringMatching(
          new RegExp(`^  line ${lineOf(delivered, 'ISSUER =')}: ISSUER = "https://gatehouse.example" .* the URL`),
        ),
        expect.stringMatching(
          new RegExp(`^  line ${lineOf(delivered, 'database_id =')}: .*-0000-.*npx wrangler d1 create gatehouse`),
        ),
      ]);
    } finally {
      writeFileSync(toml, complete + STAGING);
    }
    for (const env of [['--env', 'staging'], ['--env=staging'], ['-e', 'staging']]) {
      const { code, stderr } = await deploy(...env);
      expect(code).toBe(1);
      expect(stderr).toContain('MAIL_FROM = "hello@your.domain"');
      expect(stderr).toContain('`npx wrangler d1 create gatehouse-staging`');
      expect(stderr.trimEnd().split('\n')).toHaveLength(3);
    }
  });

  it('tries the key sets of the environment that it deploys', async () => {
    const staging = STAGING.replace('your.domain', 'gatehouse.dev').replace(/the id that[^"]*/, crypto.randomUUID());
    writeFileSync(toml, complete + staging);
    const file = join(project.root, 'keys.staging.env');
    writeFileSync(file, `REFRESH_KEYS='{}'\nUPSTASH_REDIS_REST_URL='…'\n`);
    try {
      const { code, stderr } = await deploy('--env', 'staging');
      expect(code).toBe(1);
      expect(stderr).toContain('keys.staging.env is wrong: UPSTASH_REDIS_REST_URL has no value; REFRESH_KEYS: ');
    } finally {
      rmSync(file);
      writeFileSync(toml, complete + STAGING);
    }
  });

  it('refuses to deploy production with the secrets of an environment', async () => {
    const file = join(project.root, 'keys.staging.env');
    const made = await runScript(project.root, 'keys', ['--to', file]);
    expect(made.stderr).toContain(`npm run deploy -- --env staging --secrets-file ${file}`);
    try {
      const { code, stderr } = await deploy('--secrets-file', 'keys.staging.env');
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: 'Nothing was deployed. keys.staging.env has the secrets of staging: give --env staging.\n',
      });
    } finally {
      rmSync(file);
    }
  });

  it('refuses an environment that lacks settings which wrangler does not inherit', async () => {
    writeFileSync(toml, `${complete}\n[env.staging.vars]\nAUDIENCE = "gatehouse-staging"\n`);
    try {
      expect(await deploy('--env', 'staging')).toEqual({
        code: 1,
        stdout: '',
        stderr:
          'Nothing was deployed. wrangler.toml is not complete: [env.staging.vars] has no ISSUER; no ' +
          '[[env.staging.d1_databases]] with the binding DB. An environment inherits neither variables nor databases.\n',
      });
    } finally {
      writeFileSync(toml, complete + STAGING);
    }
  });

  it('refuses an environment that wrangler.toml does not have', async () => {
    const { code, stderr } = await deploy('--env', 'stagign');
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'Nothing was deployed. wrangler.toml has no [env.stagign].\n',
    });
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
