import { expect, it } from 'vitest';

import { toPostgres } from '../../../../src/scripts/move/values.ts';
import type { Stored } from '../../../../src/scripts/move/values.ts';

const at = 'notes.x';

it.each<[string, Stored, string | null]>([
  ['int8', 2n ** 63n - 1n, '9223372036854775807'],
  ['int8', -5n, '-5'],
  ['text', '{"a":"\\n"}', '{"a":"\\n"}'],
  ['text', '', ''],
  ['bytea', new Uint8Array([0, 255]), '\\x00ff'],
  ['bytea', null, null],
])('%s takes %s as it is', (type, value, expected) => {
  expect(toPostgres(value, { name: 'x', type }, at)).toBe(expected);
});

it.each<[string, Stored, string]>([
  ['text', 'secret\0', 'a NUL character'],
  ['text', 5n, 'an integer'],
  ['int8', 'secret', 'a text'],
  ['int8', 1.5, 'a floating-point number'],
  ['text', new Uint8Array([1]), 'a blob'],
])('%s refuses %s, without showing it', (type, value, expected) => {
  const refused = () => toPostgres(value, { name: 'x', type }, at);
  expect(refused).toThrow(`notes.x holds ${expected}`);
  expect(refused).not.toThrow('secret');
});
