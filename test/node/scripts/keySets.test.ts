import { createPublicKey } from 'node:crypto';

import { calculateJwkThumbprint, exportJWK, importJWK, jwtVerify, SignJWT } from 'jose';
import { describe, expect, it } from 'vitest';

import { createKey, createKeySet, KeySetError, parseKeySet } from '../../../src/scripts/keySets.ts';
import type { KeySet, SetKind, SigningAlg } from '../../../src/scripts/keySets.ts';
import { dropRetired, rotate } from '../../../src/scripts/rotation.ts';
import { secretFaults, signingFaults } from '../../support/keyFaults.ts';

const states = ({ keys }: KeySet) => keys.map((key) => key.state);

const step = async (kind: SetKind, set: KeySet, alg: SigningAlg = 'Ed25519') =>
  await rotate(set, () => createKey(kind, 'next', alg));

describe('createKeySet', () => {
  it.each(['Ed25519', 'ES256'] as const)(
    'makes one active %s key that signs what its public half verifies',
    async (alg) => {
      const { keys } = await createKeySet('signing', alg);
      expect(keys).toHaveLength(1);
      const key = keys[0]!;
      expect(key).toMatchObject({ alg, use: 'sig', state: 'active' });

      const token = await new SignJWT({}).setProtectedHeader({ alg }).sign(await importJWK({ ...key }, alg));
      const publicKey = createPublicKey({ key: { ...key }, format: 'jwk' });
      await expect(jwtVerify(token, publicKey, { algorithms: [alg] })).resolves.toBeDefined();
      expect(key.kid).toBe(await calculateJwkThumbprint(await exportJWK(publicKey)));
    },
  );

  it.each(['refresh', 'pepper'] as const)('makes %s keys of 32 bytes, each with its own id', async (kind) => {
    const sets = [await createKeySet(kind), await createKeySet(kind)];
    const keys = sets.flatMap((set) => set.keys);
    for (const key of keys) {
      expect(key).toMatchObject({ kty: 'oct', alg: 'HS256', state: 'active' });
      expect(key.kid).toMatch(/^[A-Za-z0-9_-]{11}$/);
      expect(Buffer.from('k' in key ? key.k : '', 'base64url')).toHaveLength(32);
    }
    expect(new Set(keys.map((key) => key.kid)).size).toBe(2);
  });
});

describe('createKey', () => {
  it('makes no id that a command line takes for an option', async () => {
    const made = await Promise.all(
      Array.from({ length: 300 }, (_, index) => createKey(index % 2 === 0 ? 'signing' : 'pepper', 'next', 'Ed25519')),
    );
    expect(made.filter(({ kid }) => kid.startsWith('-'))).toEqual([]);
    expect(new Set(made.map(({ kid }) => kid)).size).toBe(made.length);
  });
});

describe('rotate', () => {
  it.each(['signing', 'refresh', 'pepper'] as const)(
    'publishes first and promotes then, one step a call (%s)',
    async (kind) => {
      const created = await createKeySet(kind);
      const published = await step(kind, created);
      expect(states(published.set)).toEqual(['active', 'next']);
      expect(published.step).toEqual({ kind: 'published', next: published.set.keys[1]!.kid });
      expect(published.set.keys[0]).toEqual(created.keys[0]);

      const promoted = await step(kind, published.set);
      expect(states(promoted.set)).toEqual(['retired', 'active']);
      expect(promoted.set.keys.map((key) => key.kid)).toEqual(published.set.keys.map((key) => key.kid));
      expect(promoted.step).toEqual({
        kind: 'promoted',
        active: published.set.keys[1]!.kid,
        retired: created.keys[0]!.kid,
      });
    },
  );

  it('makes no key when there is one to promote', async () => {
    const { set } = await step('refresh', await createKeySet('refresh'));
    await expect(rotate(set, () => Promise.reject(new Error('not needed')))).resolves.toBeDefined();
  });

  it('keeps earlier retired keys, and changes to another algorithm', async () => {
    let set = await createKeySet('signing');
    for (let i = 0; i < 4; i++) ({ set } = await step('signing', set, 'ES256'));
    expect(states(set)).toEqual(['retired', 'retired', 'active']);
    expect(set.keys.map((key) => key.alg)).toEqual(['Ed25519', 'ES256', 'ES256']);
    expect(parseKeySet('signing', JSON.stringify(set))).toEqual(set);
  });

  it('leaves the set that it was given as it is', async () => {
    const { set } = await step('signing', await createKeySet('signing'));
    const before = structuredClone(set);
    await step('signing', set);
    expect(set).toEqual(before);
  });
});

describe('dropRetired', () => {
  it('drops the retired keys, says which, and leaves the others', async () => {
    let set = await createKeySet('refresh');
    for (let i = 0; i < 3; i++) ({ set } = await step('refresh', set));
    expect(states(set)).toEqual(['retired', 'active', 'next']);
    const dropped = dropRetired(set);
    expect(dropped.set.keys).toEqual(set.keys.slice(1));
    expect(dropped.step).toEqual({ kind: 'dropped', kids: [set.keys[0]!.kid] });
  });

  it('drops one of them by name, and no key that is in use', async () => {
    let set = await createKeySet('pepper');
    for (let i = 0; i < 5; i++) ({ set } = await step('pepper', set));
    expect(states(set)).toEqual(['retired', 'retired', 'active', 'next']);
    const [, second, active, next] = set.keys.map((key) => key.kid);
    const dropped = dropRetired(set, second);
    expect(dropped.set.keys).toEqual(set.keys.filter((key) => key.kid !== second));
    expect(dropped.step).toEqual({ kind: 'dropped', kids: [second] });
    for (const kid of [active, next, 'unknown']) {
      expect(dropRetired(set, kid)).toEqual({ set, step: { kind: 'none' } });
    }
  });
});

describe('parseKeySet', () => {
  const secret = 'kYF0qT5Zx0vJcQ1m7sB4nUe8pWg2rHa9dLiOyXtGzEA';
  const key = { kty: 'oct', k: secret, kid: 'a', alg: 'HS256', state: 'active' };

  it.each([
    ['text', `{"k":"${secret}"`, 'is not JSON'],
    ['null', 'null', 'is not {"keys":[…]}'],
    ['a bare key', key, 'is not {"keys":[…]}'],
    ['no key', { keys: [] }, 'exactly one active key and has 0'],
    ['two active keys', { keys: [key, { ...key, kid: 'b' }] }, 'exactly one active key and has 2'],
    ['a kid twice', { keys: [key, { ...key, state: 'next' }] }, 'a kid twice'],
    ['a kid that is no id', { keys: [{ ...key, kid: `${secret} ` }] }, 'its key 1 has no kid'],
    ['an unknown state', { keys: [{ ...key, state: 'old' }] }, 'key a has no state'],
    ['a key without its secret', { keys: [{ ...key, k: undefined }] }, 'key a has no k'],
    ['a signing key', { keys: [{ ...key, kty: 'OKP' }] }, 'key a has no kty of oct'],
    ['an inherited kty', { keys: [{ ...key, kty: 'constructor' }] }, 'key a has no kty of oct'],
    ['a null key', { keys: [null] }, 'its key 1 is not an object'],
  ])('refuses %s without repeating it', (_, value, message) => {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    const attempt = () => parseKeySet('refresh', text);
    expect(attempt).toThrow(KeySetError);
    expect(attempt).toThrow(message);
    expect(attempt).not.toThrow(secret);
  });

  const faults = [
    ...Object.entries(signingFaults()).map(([name, fault]) => ['signing', name, fault] as const),
    ...Object.entries(secretFaults()).map(([name, fault]) => ['refresh', name, fault] as const),
  ];
  it.each(faults)('refuses, in a %s set, %s, as the Worker does', (kind, _, { value, kid, says }) => {
    const attempt = () => parseKeySet(kind, value);
    expect(attempt).toThrow(says);
    expect(attempt).toThrow(kid === '' ? says : `key ${kid} has`);
  });

  it('refuses a refresh set in the place of a signing set', () => {
    expect(() => parseKeySet('signing', JSON.stringify({ keys: [key] }))).toThrow('key a has no kty of OKP or EC');
  });
});
