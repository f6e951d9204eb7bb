import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';

import type { KeyState } from '../../../src/config/keySet';
import { parseIdempotencyKey } from '../../../src/middlewares/idempotencyKey';
import { createIdempotencySecrets } from '../../../src/services/idempotency/secrets';

const secretOf = new Map<string, string>();

function keySet(states: Record<string, KeyState>) {
  const keys = Object.entries(states).map(([kid, state]) => {
    const k = secretOf.get(kid) ?? randomBytes(32).toString('base64url');
    secretOf.set(kid, k);
    return { kty: 'oct' as const, kid, state, k };
  });
  return createIdempotencySecrets({ keys });
}

const response = { status: 201, headers: { location: '/1' }, body: new Uint8Array([0, 10, 255]) };

describe('secrets', () => {
  test('other parts give another name, whatever stands in them', () => {
    const secrets = keySet({ a: 'active' });
    const id = (...parts: string[]) => secrets.namesOf(parts, [])[0]!.id;
    const ids = [id('ab', 'c'), id('a', 'bc'), id('abc'), id('abc', ''), id('1:a'), id('a')];
    expect(new Set(ids).size).toBe(ids.length);
    const fingerprint = (...content: (string | Uint8Array)[]) => secrets.namesOf([], content)[0]!.fingerprint;
    expect(fingerprint('ä')).toBe(fingerprint(new TextEncoder().encode('ä')));
    expect(fingerprint(new Uint8Array([0xff]))).not.toBe(fingerprint(new Uint8Array([0xfe])));
  });

  test('after a rotation rows of the former key are found and opened; with the active one they are made', async () => {
    const before = keySet({ a: 'active', b: 'next' });
    const [name] = before.namesOf(['user:1', 'POST /x', 'key'], ['', '{}']);
    const sealed = await before.seal(name!.id, response);
    const after = keySet({ a: 'retired', b: 'active' });
    const names = after.namesOf(['user:1', 'POST /x', 'key'], ['', '{}']);
    expect(names[0]!.id).not.toBe(name!.id);
    expect(names).toContainEqual(name);
    const opened = await after.open(name!.id, sealed);
    expect({ ...opened, body: [...opened!.body] }).toEqual({ ...response, body: [...response.body] });
    expect(await keySet({ b: 'active' }).open(name!.id, sealed)).toBeUndefined();
  });

  test('a response is opened for its row alone, and not when it was changed', async () => {
    const secrets = keySet({ a: 'active' });
    const sealed = await secrets.seal('row', response);
    expect(await secrets.open('another row', sealed)).toBeUndefined();
    const [kid, iv, text] = sealed.split('.') as [string, string, string];
    const changed = `${text[0] === 'A' ? 'B' : 'A'}${text.slice(1)}`;
    expect(await secrets.open('row', [kid, iv, changed].join('.'))).toBeUndefined();
    expect(await secrets.seal('row', response)).not.toBe(sealed);
  });
});

test.each([
  ['"a"', 'a'],
  ['\t"a" ', 'a'],
  ['"a\\"b\\\\c"', 'a"b\\c'],
  ['"a";v=1', 'a'],
  ['"a"; *k=?0;b', 'a'],
  [`"${'\\"'.repeat(255)}"`, '"'.repeat(255)],
  ['a', undefined],
  ['"', undefined],
  ['""', undefined],
  ['"a" ;v=1', undefined],
  ['"a";V=1', undefined],
  ['"a\u007f"', undefined],
  ['"a"b', undefined],
  [`"${'a'.repeat(256)}"`, undefined],
])('the key of %j is %j', (header, key) => {
  expect(parseIdempotencyKey(header)).toBe(key);
});
