import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';

import { parseConfig } from '../../../src/config/env.ts';
import { DEFAULT_LIFETIMES, lifetimesOf } from '../../../src/scripts/keyFiles.ts';
import { createKeySet, parseKeySet } from '../../../src/scripts/keySets.ts';
import { dropsTooEarly, promotesTooEarly, PROPAGATION_SECONDS, rotate } from '../../../src/scripts/rotation.ts';
import { testBindings } from '../../support/bindings.ts';
import { copyProject, runScript } from './project.ts';
import type { Project } from './project.ts';

const START = Date.UTC(2026, 0, 1);
const iso = (ms: number) => new Date(ms).toISOString();
const key = (kid: string, state: 'next' | 'active' | 'retired', sinceMs?: number) => ({
  kid,
  state,
  ...(sinceMs !== undefined && { since: iso(sinceMs) }),
});

describe('the time of a step', () => {
  it('is written into the keys that it changes, and only there', async () => {
    const set = { keys: [key('a', 'active', 0), key('b', 'next', 1_000), key('c', 'retired', 0)] };
    const { set: after } = await rotate(set, () => Promise.reject(new Error('not needed')), START);
    expect(after.keys).toEqual([key('a', 'retired', START), key('b', 'active', START), key('c', 'retired', 0)]);
    expect((await createKeySet('refresh')).keys[0]!.since).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  });

  it('is the first millisecond at which every isolate knows the next key', () => {
    const set = { keys: [key('a', 'active', 0), key('b', 'next', START)] };
    const dueMs = START + PROPAGATION_SECONDS * 1_000;
    expect(promotesTooEarly(set, dueMs - 1)).toEqual({ kid: 'b', atMs: dueMs });
    expect(promotesTooEarly(set, dueMs)).toBeUndefined();
    expect(promotesTooEarly({ keys: [key('a', 'active', START)] }, START)).toBeUndefined();
  });

  it('is the first millisecond at which nothing lives that a retired key signed', () => {
    const set = { keys: [key('a', 'retired', START), key('b', 'active', START), key('c', 'retired', START - 60_000)] };
    const dueMs = START + (900 + PROPAGATION_SECONDS) * 1_000;
    const at = (nowMs: number, kid?: string) => dropsTooEarly(set, { lifetimeSeconds: 900, kid, nowMs });
    expect(at(START).map(({ kid }) => kid)).toEqual(['a', 'c']);
    expect(at(dueMs - 1)).toEqual([{ kid: 'a', atMs: dueMs }]);
    expect(at(dueMs - 1, 'c')).toEqual([]);
    expect(at(dueMs)).toEqual([]);
  });

  it.each([undefined, 'yesterday'])('of %s is never late enough', (since) => {
    const retired = { keys: [{ kid: 'a', state: 'retired' as const, ...(since !== undefined && { since }) }] };
    const options = { lifetimeSeconds: 1, nowMs: START * 2 };
    expect(dropsTooEarly(retired, options)).toEqual([{ kid: 'a', atMs: undefined }]);
  });
});

describe('how long tokens live', () => {
  it('is by default the Worker’s default', () => {
    const { tokens } = parseConfig({ ...testBindings({ url: 'http://127.0.0.1:1', token: 't' }), DB: {} });
    expect(DEFAULT_LIFETIMES).toEqual({
      signing: tokens.accessTtlSeconds,
      refresh: tokens.refreshAbsoluteSeconds,
      pepper: undefined,
    });
  });

  it('is the longest that wrangler.toml and the file say', () => {
    const toml =
      '[vars]\nACCESS_TOKEN_TTL_SECONDS = "60"\n# ACCESS_TOKEN_TTL_SECONDS = "9000"\n[env.a.vars]\nACCESS_TOKEN_TTL_SECONDS = 120\n';
    expect(lifetimesOf(new Map(), toml).signing).toBe(120);
    expect(lifetimesOf(new Map([['ACCESS_TOKEN_TTL_SECONDS', '600']]), toml).signing).toBe(600);
    expect(lifetimesOf(new Map([['REFRESH_ABSOLUTE_TTL_SECONDS', '3600']]), '').refresh).toBe(3_600);
    expect(lifetimesOf(new Map(), '')).toEqual(DEFAULT_LIFETIMES);
  });
});

describe('npm run keys -- rotate', () => {
  let project: Project;
  let path = '';
  beforeAll(() => {
    project = copyProject();
    path = join(project.root, 'keys.env');
  });
  afterAll(() => project[Symbol.dispose]());
  beforeEach(async () => {
    rmSync(path, { force: true });
    await runScript(project.root, 'keys', ['--to', path]);
  });

  const rotateFile = (...args: string[]) =>
    runScript(project.root, 'keys', ['rotate', '--from', path, '--write', ...args]);
  const text = () => readFileSync(path, 'utf8');
  const since = (kind: 'SIGNING_KEYS' | 'REFRESH_KEYS', state: string) => {
    const { keys } = parseKeySet(kind === 'SIGNING_KEYS' ? 'signing' : 'refresh', line(kind));
    return Date.parse(keys.find((one) => one.state === state)?.since ?? '');
  };
  const line = (name: string) => new RegExp(`^${name}='(.*)'$`, 'm').exec(text())?.[1] ?? '';
  /** As if the steps before had been taken earlier. */
  const letPass = (seconds: number) => {
    const moved = text().replaceAll(
      /"since":"([^"]+)"/g,
      (_, at: string) => `"since":"${iso(Date.parse(at) - seconds * 1_000)}"`,
    );
    writeFileSync(path, moved);
  };
  const toSecond = (ms: number) => iso(Math.ceil(ms / 1_000) * 1_000).replace('.000Z', 'Z');

  it('refuses each step that comes too early, says which time is safe, and changes nothing', async () => {
    expect((await rotateFile()).code).toBe(0);
    const published = text();
    const promotedEarly = await rotateFile();
    expect(promotedEarly).toMatchObject({ code: 1, stdout: '' });
    const promotable = since('SIGNING_KEYS', 'next') + PROPAGATION_SECONDS * 1_000;
    expect(promotedEarly.stderr).toContain(`may become active from ${toSecond(promotable)} on`);
    expect(text()).toBe(published);

    letPass(PROPAGATION_SECONDS);
    expect((await rotateFile()).code).toBe(0);
    const promoted = text();
    // The README's former third step, seconds after the second: both sets would have gone.
    const dropped = await rotateFile('--drop-retired');
    expect(dropped).toMatchObject({ code: 1, stdout: '' });
    const signingMs = since('SIGNING_KEYS', 'retired') + (900 + PROPAGATION_SECONDS) * 1_000;
    const refreshMs = since('REFRESH_KEYS', 'retired') + (30 * 86_400 + PROPAGATION_SECONDS) * 1_000;
    expect(dropped.stderr).toContain('Too early, so nothing was changed.');
    expect(dropped.stderr).toMatch(new RegExp(`SIGNING_KEYS: key \\S+ may be dropped from ${toSecond(signingMs)} on`));
    expect(dropped.stderr).toMatch(new RegExp(`REFRESH_KEYS: key \\S+ may be dropped from ${toSecond(refreshMs)} on`));
    expect(dropped.stderr).toContain('their owners are signed out');
    expect(text()).toBe(promoted);

    letPass(900 + PROPAGATION_SECONDS);
    const stillRefresh = await rotateFile('--drop-retired');
    expect(stillRefresh.code).toBe(1);
    expect(stillRefresh.stderr).not.toContain('SIGNING_KEYS');
    expect((await rotateFile('--drop-retired', '--set', 'signing')).stderr).toContain('SIGNING_KEYS: dropped');
    expect(line('REFRESH_KEYS')).toContain('"retired"');

    letPass(30 * 86_400);
    expect((await rotateFile('--drop-retired', '--set', 'refresh')).stderr).toContain('REFRESH_KEYS: dropped');
  });

  it('says that there is nothing to drop, or to deploy, and leaves the file as it is', async () => {
    const before = text();
    const { code, stdout, stderr } = await rotateFile('--drop-retired');
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
    expect(stderr.trimEnd().split('\n')).toEqual([
      '# SIGNING_KEYS: has no retired key.',
      '# REFRESH_KEYS: has no retired key.',
      '# Nothing was changed, so there is nothing to deploy.',
    ]);
    expect(text()).toBe(before);
    // In a pipe the set goes on as it is: an empty one would be set as the secret.
    const piped = await runScript(project.root, 'keys', ['rotate', '--drop-retired', '--from', path]);
    expect(piped.stdout).toBe(before);
  });

  it('refuses a third step that would begin another rotation, until the retired key is dropped', async () => {
    for (const force of [[], ['--force']]) await rotateFile(...force);
    const before = text();
    const third = await rotateFile();
    expect(third).toMatchObject({ code: 1, stdout: '' });
    expect(third.stderr).toContain('This would begin another rotation, so nothing was changed.');
    expect(third.stderr).toMatch(
      /SIGNING_KEYS: key \S+ is retired .* REFRESH_KEYS: key \S+ is retired .* --drop-retired/,
    );
    expect(text()).toBe(before);

    letPass(900 + PROPAGATION_SECONDS);
    await rotateFile('--drop-retired', '--set', 'signing');
    // The refresh keys' third step has to wait for a month; the signing keys need not.
    expect((await rotateFile()).stderr).not.toContain('SIGNING_KEYS');
    expect((await rotateFile('--set', 'signing')).stderr).toMatch(/SIGNING_KEYS: \S+ is published as the next key/);
    expect((await rotateFile('--set', 'refresh', '--force')).stderr).toMatch(/REFRESH_KEYS: \S+ is published/);
  });

  it('counts the lifetimes that the deployment has', async () => {
    const toml = join(project.root, 'wrangler.toml');
    const before = readFileSync(toml, 'utf8');
    writeFileSync(toml, before.replace('[vars]', '[vars]\nACCESS_TOKEN_TTL_SECONDS = "86400"'));
    onTestFinished(() => writeFileSync(toml, before));
    for (const force of [[], ['--force']]) await rotateFile('--set', 'signing', ...force);
    letPass(86_400);
    const early = await rotateFile('--drop-retired', '--set', 'signing');
    const dueMs = since('SIGNING_KEYS', 'retired') + (86_400 + PROPAGATION_SECONDS) * 1_000;
    expect(early.stderr).toContain(toSecond(dueMs));
  });

  it('asks for the time of a key that has none, and takes the step at once when it must', async () => {
    for (const force of [[], ['--force']]) await rotateFile('--set', 'refresh', ...force);
    writeFileSync(path, text().replaceAll(/,"since":"[^"]+"/g, ''));
    const unknown = await rotateFile('--drop-retired', '--set', 'refresh');
    expect(unknown.code).toBe(1);
    expect(unknown.stderr).toContain('does not say since when it is retired: add "since"');
    const forced = await rotateFile('--drop-retired', '--set', 'refresh', '--force');
    expect(forced).toMatchObject({ code: 0, stdout: '' });
    expect(parseKeySet('refresh', line('REFRESH_KEYS')).keys).toHaveLength(1);
  });
});

describe('npm run keys -- check', () => {
  it('tries every key and shows none', async () => {
    using project = copyProject();
    const path = join(project.root, 'keys.env');
    await runScript(project.root, 'keys', ['--to', path]);
    const good = await runScript(project.root, 'keys', ['check', '--from', path]);
    expect(good.code).toBe(0);
    expect(good.stdout.trimEnd().split('\n')).toHaveLength(2);
    expect(good.stdout).toMatch(/^SIGNING_KEYS: key \S+ works, active since 20/);

    const d = /"d":"([\w-]+)"/.exec(readFileSync(path, 'utf8'))![1]!;
    writeFileSync(path, readFileSync(path, 'utf8').replace(d, `${d.slice(0, -3)}AAA`));
    const bad = await runScript(project.root, 'keys', ['check', '--from', path]);
    expect(bad).toMatchObject({ code: 1, stdout: '' });
    expect(bad.stderr).toMatch(/SIGNING_KEYS in \S+: key \S+ has (a d that does not belong|no d of 32 bytes)/);
    expect(bad.stderr).not.toContain(d.slice(0, 20));
  });
});
