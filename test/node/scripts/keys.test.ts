import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { parseVars } from '../../../src/scripts/devVars.ts';
import { parseKeySet } from '../../../src/scripts/keySets.ts';
import type { SetKind } from '../../../src/scripts/keySets.ts';
import { copyProject, runScript } from './project.ts';
import type { Project } from './project.ts';

let project: Project;
beforeAll(() => {
  project = copyProject();
});
afterAll(() => project[Symbol.dispose]());
afterEach(() => {
  for (const name of ['.dev.vars', 'keys.env', 'signing.json']) rmSync(join(project.root, name), { force: true });
});

const keys = (args: readonly string[], input?: string) =>
  runScript(project.root, 'keys', args, input === undefined ? {} : { input });

const states = (kind: SetKind, text: string | undefined) =>
  parseKeySet(kind, text ?? '').keys.map((key) => `${key.alg} ${key.state}`);

/** Every private part of a text. */
const secretsOf = (text: string) => Array.from(text.matchAll(/"[dk]":"([\w-]{43})"/g), ([, secret = '']) => secret);

describe('npm run keys', () => {
  it('prints both sets and nothing else on stdout, and the next steps on stderr', async () => {
    const { code, stdout, stderr } = await keys([]);
    expect(code).toBe(0);
    const vars = parseVars(stdout);
    expect(states('signing', vars.get('SIGNING_KEYS'))).toEqual(['Ed25519 active']);
    expect(states('refresh', vars.get('REFRESH_KEYS'))).toEqual(['HS256 active']);
    expect(stdout.trimEnd().split('\n')).toHaveLength(2);
    expect(stderr).toContain('npm run deploy -- --secrets-file');
  });

  it('prints the bare JSON of one set, for a pipe into `wrangler secret put`', async () => {
    const { stdout } = await keys(['--set', 'signing', '--alg', 'ES256']);
    expect(states('signing', stdout)).toEqual(['ES256 active']);
  });

  it.each(['keys.env', '.dev.vars'])(
    'writes new sets to %s, for its owner only, and shows no private key',
    async (name) => {
      const path = join(project.root, name);
      const args = name === '.dev.vars' ? ['--write'] : ['--to', path];
      const { code, stdout, stderr } = await keys(args);
      expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
      expect(statSync(path).mode & 0o777).toBe(0o600);
      const text = readFileSync(path, 'utf8');
      expect(secretsOf(text).length).toBe(2);
      for (const secret of secretsOf(text)) expect(stderr).not.toContain(secret);
    },
  );

  it('does not write over the keys of another file', async () => {
    const path = join(project.root, 'keys.env');
    await keys(['--to', path]);
    const before = readFileSync(path, 'utf8');
    const again = await keys(['--to', path]);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain('has SIGNING_KEYS and REFRESH_KEYS already: rotate it');
    expect(readFileSync(path, 'utf8')).toBe(before);
    expect((await keys(['--set', 'pepper', '--to', path])).code).toBe(0);
    expect(readFileSync(path, 'utf8').startsWith(before)).toBe(true);
  });

  it.skipIf(process.platform === 'win32')('takes the file that a shell opened for it from other users', () => {
    const path = join(project.root, 'keys.env');
    const script = join(project.root, 'src/scripts/keys.ts');
    execFileSync('/bin/sh', ['-c', 'umask 000; "$0" "$1" > "$2" 2> /dev/null', process.execPath, script, path]);
    expect(parseVars(readFileSync(path, 'utf8')).size).toBe(2);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('rotates the keys of .dev.vars, and writes the file only with --write', async () => {
    const path = join(project.root, '.dev.vars');
    await keys(['--write']);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    writeFileSync(path, `MINE=1\n${readFileSync(path, 'utf8')}`);
    const before = readFileSync(path, 'utf8');

    const looked = await keys(['rotate']);
    expect(states('signing', parseVars(looked.stdout).get('SIGNING_KEYS'))).toEqual(['Ed25519 active', 'Ed25519 next']);
    expect(readFileSync(path, 'utf8')).toBe(before);

    const after: string[][] = [];
    for (const args of [['rotate'], ['rotate'], ['rotate', '--drop-retired']]) {
      const before = secretsOf(readFileSync(path, 'utf8'));
      const { code, stdout, stderr } = await keys([...args, '--set', 'refresh', '--write', '--force']);
      expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
      expect(stderr).toContain('restart it');
      expect(stderr).not.toContain('eploy');
      for (const secret of [...before, ...secretsOf(readFileSync(path, 'utf8'))]) expect(stderr).not.toContain(secret);
      after.push(states('refresh', parseVars(readFileSync(path, 'utf8')).get('REFRESH_KEYS')));
    }
    expect(after).toEqual([['HS256 active', 'HS256 next'], ['HS256 retired', 'HS256 active'], ['HS256 active']]);

    const vars = parseVars(readFileSync(path, 'utf8'));
    expect(vars.get('MINE')).toBe('1');
    expect(vars.get('SIGNING_KEYS')).toBe(parseVars(before).get('SIGNING_KEYS'));
  });

  it('rotates from stdin and from a file, in the algorithm that is active', async () => {
    const { stdout } = await keys(['--set', 'signing', '--alg', 'ES256']);
    const piped = await keys(['rotate', '--set', 'signing', '--from', '-'], stdout);
    expect(states('signing', piped.stdout)).toEqual(['ES256 active', 'ES256 next']);

    const path = join(project.root, 'signing.json');
    writeFileSync(path, piped.stdout);
    await keys(['rotate', '--set', 'signing', '--from', path, '--write', '--force']);
    expect(states('signing', readFileSync(path, 'utf8'))).toEqual(['ES256 retired', 'ES256 active']);
  });

  it('creates and rotates the peppers, apart from the sets of the tokens', async () => {
    const path = join(project.root, '.dev.vars');
    const vars = () => parseVars(readFileSync(path, 'utf8'));
    await keys(['--write']);
    expect(vars().has('PEPPER_KEYS')).toBe(false);
    expect((await keys(['--set', 'pepper', '--write'])).code).toBe(0);
    const first = vars().get('PEPPER_KEYS');
    expect(states('pepper', first)).toEqual(['HS256 active']);

    for (const step of [[], [], ['--drop-retired']]) await keys(['rotate', ...step, '--write', '--force']);
    expect(states('refresh', vars().get('REFRESH_KEYS'))).toEqual(['HS256 active']);
    expect(vars().get('PEPPER_KEYS')).toBe(first);

    await keys(['rotate', '--set', 'pepper', '--write']);
    const promoted = await keys(['rotate', '--set', 'pepper', '--write', '--force']);
    expect(promoted.stderr).toContain('Keep the retired key');
    expect(states('pepper', vars().get('PEPPER_KEYS'))).toEqual(['HS256 retired', 'HS256 active']);
  });

  it('never loses a pepper that is not named', async () => {
    const path = join(project.root, '.dev.vars');
    await keys(['--set', 'pepper', '--write']);
    await keys(['rotate', '--set', 'pepper', '--write']);
    await keys(['rotate', '--set', 'pepper', '--write', '--force']);
    const before = readFileSync(path, 'utf8');

    for (const args of [
      ['--set', 'pepper', '--write'],
      ['rotate', '--set', 'pepper', '--drop-retired', '--write'],
    ]) {
      expect((await keys(args)).code).toBe(1);
      expect(readFileSync(path, 'utf8')).toBe(before);
    }
    const [retired, active] = parseKeySet('pepper', parseVars(before).get('PEPPER_KEYS')!).keys;
    const drop = ['rotate', '--set', 'pepper', '--drop-retired', '--write', '--kid'];
    expect(await keys([...drop, active!.kid])).toMatchObject({
      code: 1,
      stderr: `PEPPER_KEYS has no retired key ${active!.kid}, so nothing was changed.\n`,
    });
    expect(readFileSync(path, 'utf8')).toBe(before);
    expect((await keys([...drop, retired!.kid])).stderr).toContain(`dropped ${retired!.kid}`);
    expect(states('pepper', parseVars(readFileSync(path, 'utf8')).get('PEPPER_KEYS'))).toEqual(['HS256 active']);
  });

  it.each([
    [['turn'], 'There is no command "turn"'],
    [['--set', 'both'], '--set must be signing or refresh or pepper'],
    [['--alg', 'RS256'], '--alg must be Ed25519 or ES256'],
    [['--colour'], "Unknown option '--colour'"],
    [['--from', 'x'], '--from belongs to rotate and check'],
    [['--drop-retired'], 'belong to rotate'],
    [['check', '--force'], 'belong to rotate'],
    [['rotate', '--to', 'x'], '--to belongs to new sets'],
    [['check'], 'There is no .dev.vars'],
    [['rotate', '--kid', 'x'], '--kid belongs to --drop-retired'],
    [['rotate', '--drop-retired', '--kid', 'x'], '--kid belongs to --drop-retired of one --set'],
    [['rotate', '--set', 'pepper', '--drop-retired'], 'A pepper is dropped by name'],
    [['rotate', '--set', 'pepper', '--from', '-'], 'stdin has no PEPPER_KEYS'],
    [['rotate'], 'There is no .dev.vars'],
    [['rotate', '--from', '-'], 'stdin has no SIGNING_KEYS'],
  ])('refuses %j in one line', async (args, message) => {
    const { code, stdout, stderr } = await keys(args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it('does not repeat a broken set', async () => {
    const { code, stderr } = await keys(['rotate', '--from', '-', '--set', 'refresh'], '{"keys":[{"k":"hunter2"}]}');
    expect(code).toBe(1);
    expect(stderr).toContain('REFRESH_KEYS in stdin: its key 1 has no kty');
    expect(stderr).not.toContain('hunter2');
  });
});
