import { describe, expect, it } from 'vitest';

import type { LogEntry } from '../../../src/gateway/log.ts';
import { UserError } from '../../../src/scripts/cli.ts';
import { logGateway } from '../../../src/scripts/devRedis.ts';
import { readDevSettings } from '../../../src/scripts/devSettings.ts';
import { parseVars } from '../../../src/scripts/devVars.ts';
import { createKeySet, parseKeySet } from '../../../src/scripts/keySets.ts';

/** A complete .dev.vars, as a first start writes it. */
const complete = async () => (await readDevSettings({}, undefined)).devVars.text;

const failure = async (env: Record<string, string>, text?: string): Promise<string> => {
  const error: unknown = await readDevSettings(env, text).catch((reason: unknown) => reason);
  if (!(error instanceof UserError)) throw new Error('no UserError', { cause: error });
  expect(error.message).not.toContain('\n');
  return error.message;
};

describe('.dev.vars', () => {
  it('is generated whole when there is none', async () => {
    const { devVars, gateway, host, port } = await readDevSettings({}, undefined);
    const vars = parseVars(devVars.text);
    expect([...vars.keys()]).toEqual(devVars.added);
    expect(parseKeySet('signing', vars.get('SIGNING_KEYS')!).keys).toHaveLength(1);
    expect(parseKeySet('refresh', vars.get('REFRESH_KEYS')!).keys).toHaveLength(1);
    expect(vars.get('UPSTASH_REDIS_REST_URL')).toBe('http://127.0.0.1:8079');
    expect(vars.get('UPSTASH_REDIS_REST_TOKEN')).toMatch(/^[\w-]{43}$/);
    expect(vars.get('ISSUER')).toBe('http://127.0.0.1:8787');
    expect({ host, port }).toEqual({ host: '127.0.0.1', port: 8787 });
    expect(gateway).toMatchObject({ port: 8079, token: vars.get('UPSTASH_REDIS_REST_TOKEN') });
    expect(gateway).not.toHaveProperty('redisUrl');
  });

  it('is different at each place', async () => {
    expect(parseVars(await complete())).not.toEqual(parseVars(await complete()));
  });

  it('gets only the names that it lacks', async () => {
    const text = (await complete()).replace(/^REFRESH_KEYS=.*\n/m, '# my note\n');
    const { devVars } = await readDevSettings({}, text);
    expect(devVars.added).toEqual(['REFRESH_KEYS']);
    expect(devVars.text.startsWith(text)).toBe(true);
    expect(devVars.text.slice(text.length)).toMatch(/^REFRESH_KEYS='\{.*\}'\n$/);
    await expect(readDevSettings({}, devVars.text)).resolves.toMatchObject({
      devVars: { added: [], text: devVars.text },
    });
  });

  it('is refused with every broken name in one line, and no secret', async () => {
    const text = (await complete())
      .replace(/^SIGNING_KEYS=.*/m, `SIGNING_KEYS='{"d":"hunter2"'`)
      .replace(/^REFRESH_KEYS=.*/m, `REFRESH_KEYS='{"keys":[]}'`)
      .replace(/^ISSUER=.*/m, 'ISSUER=here');
    const message = await failure({}, text);
    expect(message).toContain('SIGNING_KEYS: is not JSON');
    expect(message).toContain('REFRESH_KEYS: needs exactly one active key');
    expect(message).toContain('ISSUER is not an http or https URL');
    expect(message).not.toContain('hunter2');
    expect(await failure({}, 'UPSTASH_REDIS_REST_TOKEN=')).toContain('UPSTASH_REDIS_REST_TOKEN is empty');
  });

  it('may have peppers, which must be whole then', async () => {
    const text = await complete();
    expect(text).not.toContain('PEPPER_KEYS');
    const peppers = `PEPPER_KEYS='${JSON.stringify(await createKeySet('pepper'))}'\n`;
    await expect(readDevSettings({}, text + peppers)).resolves.toMatchObject({ devVars: { added: [] } });
    expect(await failure({}, `${text}PEPPER_KEYS='{"keys":[]}'\n`)).toContain('PEPPER_KEYS: needs exactly one active');
  });
});

describe('environment', () => {
  it('sets the ports, the addresses and Redis', async () => {
    const env = { PORT: ' 9000 ', HOST: '0.0.0.0', GATEWAY_PORT: '9001', REDIS_HOST: 'db', REDIS_PASSWORD: 'p' };
    await expect(readDevSettings(env, undefined)).resolves.toMatchObject({
      host: '0.0.0.0',
      port: 9000,
      gateway: { port: 9001, redisUrl: 'redis://:p@db:6379' },
    });
  });

  it.each<[Record<string, string>, string]>([
    [{ PORT: '0' }, 'PORT must be'],
    [{ PORT: '80 80' }, 'PORT must be'],
    [{ PORT: '65536' }, 'PORT must be'],
    [{ PORT: '8079' }, 'PORT and GATEWAY_PORT are both 8079'],
    [{ GATEWAY_PORT: '-1' }, 'GATEWAY_PORT'],
    [{ REDIS_URL: 'http://db' }, 'REDIS_URL'],
    [{ REDIS_URL: 'redis://:hunter2@' }, 'REDIS_URL'],
  ])('is refused in one line: %o', async (env, message) => {
    const error = await failure(env);
    expect(error).toContain(message);
    expect(error).not.toContain('hunter2');
  });
});

describe('gateway', () => {
  const pointingAt = async (url: string) =>
    (await complete()).replace(/^UPSTASH_REDIS_REST_URL=.*/m, `UPSTASH_REDIS_REST_URL=${url}`);

  it('listens where .dev.vars points, when that is this machine', async () => {
    const settings = await readDevSettings({}, await pointingAt('http://localhost:9100'));
    expect(settings.gateway).toMatchObject({ port: 9100 });
  });

  it('is left out when .dev.vars points elsewhere, unless it is asked for', async () => {
    const text = await pointingAt('https://eu1.upstash.example');
    expect((await readDevSettings({}, text)).gateway).toBeUndefined();
    expect((await readDevSettings({ GATEWAY_PORT: '' }, text)).gateway).toBeUndefined();
    expect((await readDevSettings({ REDIS_URL: 'redis://db' }, text)).gateway).toMatchObject({ port: 8079 });
  });
});

describe('the gateway’s log in npm run dev', () => {
  const shownOf = (entries: readonly LogEntry[]) => {
    const lines: string[] = [];
    const log = logGateway(new AbortController().signal, (line) => lines.push(line));
    for (const entry of entries) log(entry);
    return lines.map((line) => (JSON.parse(line) as LogEntry).event);
  };
  const connected: LogEntry = { level: 'info', event: 'redis_connected' };
  const powerful: LogEntry = { level: 'warn', event: 'redis_user_too_powerful', token: 'full' };

  it('has no word on a start, or on the rights of a developer’s own Redis user', () => {
    expect(shownOf([connected, powerful, connected])).toEqual([]);
  });

  it('has the loss of Redis, and its return', () => {
    expect(shownOf([powerful, { level: 'warn', event: 'redis_lost' }, connected])).toEqual([
      'redis_lost',
      'redis_connected',
    ]);
  });

  it('has a user of the read-only token that may write, because its scripts are refused', () => {
    expect(shownOf([{ ...powerful, level: 'error', token: 'read-only' }])).toEqual(['redis_user_too_powerful']);
  });
});
