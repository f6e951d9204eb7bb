import { scryptSync } from 'node:crypto';
import { expect, test } from 'vitest';

import { hashPassword, verifyPassword } from '../../../src/services/password';

test('a hash is a PHC string that verifies its password alone', async () => {
  const stored = await hashPassword('correct horse');
  expect(stored).toMatch(/^\$scrypt\$ln=15,r=8,p=3\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/);
  expect(await verifyPassword(stored, 'correct horse')).toEqual({ valid: true, rehash: false });
  expect((await verifyPassword(stored, 'correct horsf')).valid).toBe(false);
});

test('two hashes of one password differ', async () => {
  expect(await hashPassword('same')).not.toBe(await hashPassword('same'));
});

test('a password counts in NFC', async () => {
  const stored = await hashPassword('caf\u00e9 caf\u00e9');
  expect((await verifyPassword(stored, 'cafe\u0301 cafe\u0301')).valid).toBe(true);
});

test('older parameters verify, and ask for a new hash', async () => {
  const salt = Buffer.alloc(16, 7);
  const hash = scryptSync('old', salt, 32, { N: 2 ** 14, r: 8, p: 1 });
  const b64 = (bytes: Buffer) => bytes.toString('base64').replaceAll('=', '');
  const stored = `$scrypt$ln=14,r=8,p=1$${b64(salt)}$${b64(hash)}`;
  expect(await verifyPassword(stored, 'old')).toEqual({ valid: true, rehash: true });
});

test('an unknown account is never valid, whatever the password', async () => {
  expect(await verifyPassword(undefined, '')).toEqual({ valid: false, rehash: false });
});

test('concurrent hashes all finish', async () => {
  const stored = await Promise.all(['a', 'b', 'c'].map((password) => hashPassword(password)));
  expect((await verifyPassword(stored[1], 'b')).valid).toBe(true);
});
