import { createHmac, randomBytes, scryptSync } from 'node:crypto';
import { env } from 'cloudflare:workers';
import { describe, expect, test, vi } from 'vitest';

import { createApp } from '../../../src/app';
import { parseConfig } from '../../../src/config/env';
import type { ScryptParameters } from '../../../src/config/env';
import { createPasswordService } from '../../../src/services/password.service';
import type { Derive } from '../../../src/services/password.service';
import { TRUE_HASHES } from '../../support/bindings';
import { bindings, callerOf, isolateFor } from '../support/request';

type State = 'next' | 'active' | 'retired';

const secrets = { 'pepper-one': randomBytes(32), pepper_two: randomBytes(32) };

/** PEPPER_KEYS with these keys in these states. */
const peppers = (states: Partial<Record<keyof typeof secrets, State>>) => ({
  PEPPER_KEYS: JSON.stringify({
    keys: Object.entries(states).map(([kid, state]) => ({
      kty: 'oct',
      kid,
      state,
      alg: 'HS256',
      k: secrets[kid as keyof typeof secrets].toString('base64url'),
    })),
  }),
});

/** The service of these settings, and every derivation that it makes. */
function service(settings: Record<string, string> = {}) {
  const derived: { password: string; length: number; parameters: ScryptParameters }[] = [];
  // Everything but the cost.
  const derive: Derive = (password, salt, length, parameters) => {
    derived.push({ password, length, parameters });
    return scryptSync(`${password} ${JSON.stringify(parameters)}`, salt, length, { N: 2, r: 1, p: 1 });
  };
  return Object.assign(
    createPasswordService({ config: parseConfig({ ...env, ...TRUE_HASHES, ...settings }), derive }),
    { derived },
  );
}

const b64 = (bytes: Buffer) => bytes.toString('base64').replaceAll('=', '');

describe('a hash', () => {
  const real = createPasswordService({ config: parseConfig({ ...env, ...TRUE_HASHES }) });

  test('is a PHC string that verifies its password alone', async () => {
    const stored = await real.hash('correct horse');
    expect(stored).toMatch(/^\$scrypt\$ln=15,r=8,p=3\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
    expect(await real.verify(stored, 'correct horse')).toEqual({ valid: true, rehash: false });
    expect(await real.verify(stored, 'correct horsf')).toEqual({ valid: false, rehash: false });
  });

  test('is scrypt’s, of the password in NFC', async () => {
    const salt = Buffer.alloc(16, 7);
    const hash = scryptSync('caf\u00e9', salt, 32, { N: 2 ** 14, r: 8, p: 1 });
    const stored = `$scrypt$ln=14,r=8,p=1$${b64(salt)}$${b64(hash)}`;
    expect(await real.verify(stored, 'cafe\u0301')).toEqual({ valid: true, rehash: true });
  });

  test('differs from another of the same password', async () => {
    const passwords = service();
    expect(await passwords.hash('same')).not.toBe(await passwords.hash('same'));
  });

  test('that is no PHC string is an error, not a wrong password', async () => {
    await expect(service().verify('$argon2id$v=19$m=1', 'x')).rejects.toThrow('not a scrypt PHC string');
  });
});

describe('parameters', () => {
  const dearer = { SCRYPT_LN: '16', SCRYPT_R: '8', SCRYPT_P: '2' };

  test('are those of the settings', async () => {
    const passwords = service(dearer);
    expect(await passwords.hash('correct horse')).toMatch(/^\$scrypt\$ln=16,r=8,p=2\$/);
    expect(passwords.derived.map(({ parameters }) => parameters)).toEqual([{ ln: 16, r: 8, p: 2 }]);
  });

  test('of a stored string count for it, and ask for a new hash', async () => {
    const stored = await service().hash('correct horse');
    expect(await service(dearer).verify(stored, 'correct horse')).toEqual({ valid: true, rehash: true });
    expect(await service(dearer).verify(stored, 'wrong')).toEqual({ valid: false, rehash: false });
  });
});

describe('a pepper', () => {
  test('keys an HMAC over scrypt’s output, and is named by the string', async () => {
    const passwords = service(peppers({ 'pepper-one': 'active' }));
    const stored = await passwords.hash('correct horse');
    const [, , parameters, salt = '', digest] = stored.split('$');
    expect(parameters).toBe('ln=15,r=8,p=3,keyid=pepper+one');
    const inner = scryptSync(
      `correct horse ${JSON.stringify(passwords.derived[0]?.parameters)}`,
      Buffer.from(salt, 'base64'),
      32,
      { N: 2, r: 1, p: 1 },
    );
    expect(digest).toBe(b64(createHmac('sha256', secrets['pepper-one']).update(inner).digest()));
  });

  test('is needed: another key under the same name does not verify', async () => {
    const stored = await service(peppers({ 'pepper-one': 'active' })).hash('correct horse');
    const other = peppers({ 'pepper-one': 'active' }).PEPPER_KEYS.replace(
      secrets['pepper-one'].toString('base64url'),
      randomBytes(32).toString('base64url'),
    );
    expect((await service({ PEPPER_KEYS: other }).verify(stored, 'correct horse')).valid).toBe(false);
  });

  test.each<[string, Record<string, string>, boolean]>([
    ['active', peppers({ 'pepper-one': 'active' }), false],
    ['active, another next', peppers({ 'pepper-one': 'active', pepper_two: 'next' }), false],
    ['retired', peppers({ 'pepper-one': 'retired', pepper_two: 'active' }), true],
    ['next, after a rotation was taken back', peppers({ 'pepper-one': 'next', pepper_two: 'active' }), true],
  ])('%s verifies; a new hash is due unless it is the active one', async (_name, settings, rehash) => {
    const stored = await service(peppers({ 'pepper-one': 'active' })).hash('correct horse');
    expect(await service(settings).verify(stored, 'correct horse')).toEqual({ valid: true, rehash });
    expect((await service(settings).verify(stored, 'wrong')).valid).toBe(false);
  });

  test('comes to hashes from before it with the next login', async () => {
    const passwords = service(peppers({ pepper_two: 'active' }));
    expect(await passwords.verify(await service().hash('correct horse'), 'correct horse')).toEqual({
      valid: true,
      rehash: true,
    });
  });

  test.each([
    ['dropped', peppers({ pepper_two: 'active' })],
    ['and all others gone', {}],
  ])('that is %s is a fault of the configuration, never a wrong password', async (_name, settings) => {
    const stored = await service(peppers({ 'pepper-one': 'active' })).hash('correct horse');
    const passwords = service(settings);
    for (const password of ['correct horse', 'wrong']) {
      await expect(passwords.verify(stored, password)).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
        message: 'PEPPER_KEYS lacks the key pepper-one of a stored password.',
      });
    }
    expect(passwords.derived).toEqual([]);
  });
});

describe('an account that does not exist', () => {
  test.each([
    ['usual', {}],
    ['dearer', { SCRYPT_LN: '16', SCRYPT_P: '2' }],
    ['peppered', peppers({ 'pepper-one': 'active' })],
  ])('is never valid and costs what a known one costs, %s settings', async (_name, settings) => {
    const passwords = service(settings);
    const { derived } = passwords;
    const stored = await passwords.hash('correct horse');
    derived.length = 0;
    expect(await passwords.verify(stored, 'guess')).toEqual({ valid: false, rehash: false });
    expect(await passwords.verify(undefined, 'guess')).toEqual({ valid: false, rehash: false });
    expect(derived).toHaveLength(2);
    expect(derived[1]).toEqual(derived[0]);
  });
});

describe('login over HTTP', () => {
  const known = { email: 'pepper@example.com', password: 'correct horse battery', name: 'Pepper' };
  const stored = () =>
    env.DB.prepare('select password_hash from users where email = ?').bind(known.email).first<string>('password_hash');
  const login = (settings: Record<string, string>, body: object = known) => {
    const bound = bindings({ ...TRUE_HASHES, ...settings });
    const { email, password } = { ...known, ...body };
    return callerOf(createApp({ isolate: isolateFor(bound) }), bound)('POST', '/v1/auth/login', {
      body: { email, password },
    });
  };

  test('heals older parameters and peppers, and does not call a lost pepper a wrong password', async () => {
    const bound = bindings(TRUE_HASHES);
    const call = callerOf(createApp({ isolate: isolateFor(bound) }), bound);
    expect((await call('POST', '/v1/auth/register', { body: known })).status).toBe(201);
    expect(await stored()).toMatch(/^\$scrypt\$ln=15,r=8,p=3\$/);

    const newer = { SCRYPT_LN: '14', SCRYPT_P: '5', ...peppers({ pepper_two: 'active' }) };
    expect((await login(newer, { password: 'a wrong guess' })).body.code).toBe('INVALID_CREDENTIALS');
    expect(await stored()).toMatch(/^\$scrypt\$ln=15,r=8,p=3\$/);
    expect((await login(newer)).status).toBe(200);
    expect(await stored()).toMatch(/^\$scrypt\$ln=14,r=8,p=5,keyid=pepper\/two\$/);
    expect((await login(newer)).status).toBe(200);

    const logged = vi.spyOn(console, 'error').mockImplementation(() => undefined);
    const lost = await login({});
    expect(lost.status).toBe(503);
    expect(lost.body.code).toBe('CONFIG_INVALID');
    // The setting at fault, and the response.
    expect(logged.mock.calls).toHaveLength(2);
    expect(JSON.parse(String(logged.mock.calls[0]?.[0]))).toEqual({
      level: 'error',
      event: 'config.invalid',
      detail: 'PEPPER_KEYS lacks the key pepper_two of a stored password.',
      requestId: expect.any(String),
    });
    logged.mockRestore();
  });
});
