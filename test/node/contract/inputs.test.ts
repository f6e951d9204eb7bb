import { afterAll, beforeAll, expect, it } from 'vitest';

import { PATIENT } from '../../support/app.ts';
import { openApi, operations, requestValidator } from '../../support/contract/contract.ts';
import { startScene } from '../faults/scene.ts';
import type { Account, Scene, SignedIn } from '../faults/scene.ts';

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startScene(PATIENT);
  user = await scene.newAccount();
});
afterAll(() => scene[Symbol.asyncDispose]());

const validateBody = (schema: string, body: unknown) =>
  requestValidator({ $ref: `#/components/schemas/${schema}` })(body);

let counter = 0;
const registration = (change: object) => {
  counter += 1;
  return { email: `input${counter}@example.com`, password: 'correct horse battery', name: 'Input', ...change };
};
const local = (length: number) => `${'a'.repeat(length - '@example.com'.length)}@example.com`;

/** The document and the server on one body: both take it, or neither does. */
it.each<[string, object, boolean]>([
  ['a name of 100 letters', { name: 'x'.repeat(100) }, true],
  ['a name of 101 letters', { name: 'x'.repeat(101) }, false],
  ['a name of 100 emoji', { name: '😀'.repeat(100) }, true],
  ['a name of 101 emoji', { name: '😀'.repeat(101) }, false],
  ['no name', { name: '' }, false],
  ['a name that is null', { name: null }, false],
  ['a name that is a number', { name: 1 }, false],
  ['a password of 7', { password: 'pt9#xQz' }, false],
  ['a password of 8', { password: 'pt9#xQzw' }, true],
  ['a password of 8 emoji', { password: '😀🎈🚲🌵🍋🦊⚓🧭' }, true],
  ['a password of 7 emoji', { password: '😀🎈🚲🌵🍋🦊⚓' }, false],
  ['a password of 256 emoji', { password: '😀🎈🚲🌵🍋🦊⚓🧭'.repeat(32) }, true],
  ['a password of 257 emoji', { password: `${'😀🎈🚲🌵🍋🦊⚓🧭'.repeat(32)}😀` }, false],
  ['a password of 257', { password: 'pt9#xQzw'.repeat(32) + 'x' }, false],
  ['a device', { device: 'Phone' }, true],
  ['a device that is null', { device: null }, true],
  ['an empty device', { device: '' }, false],
  ['a device of 101', { device: 'x'.repeat(101) }, false],
  ['no address', { email: '' }, false],
  ['an address without a host', { email: 'somebody' }, false],
  ['an address of 254', { email: local(254) }, true],
  ['an address of 255', { email: local(255) }, false],
  ['a member that is not known', { nickname: 'x' }, false],
])('%s', async (_, change, accepted) => {
  const body = registration(change);
  const { status } = await scene.call('POST', '/v1/auth/register', {
    body,
    headers: { 'CF-Connecting-IP': `198.19.0.${counter}` },
  });
  expect({ server: status === 201, document: validateBody('Registration', body) }).toEqual({
    server: accepted,
    document: accepted,
  });
});

it.each<[string, object, boolean]>([
  ['a name', { name: 'Changed' }, true],
  ['nothing', {}, false],
  ['a name of 101', { name: 'x'.repeat(101) }, false],
])('a change of the profile: %s', async (_, body, accepted) => {
  const { status } = await scene.call('PATCH', '/v1/users/me', { token: user.access, body });
  expect({ server: status === 200, document: validateBody('ProfileChange', body) }).toEqual({
    server: accepted,
    document: accepted,
  });
});

it('a change of null alone changes nothing, and is refused', async () => {
  const { status } = await scene.call('PATCH', '/v1/users/me', { token: user.access, body: { name: null } });
  expect(status).toBe(422);
});

it.each([
  ['page', '0', false],
  ['page', '1', true],
  ['page', '100000', true],
  ['page', '100001', false],
  ['page', 'x', false],
  ['limit', '100', true],
  ['limit', '101', false],
  ['q', '', false],
  ['q', 'x'.repeat(101), false],
])('the parameter %s as %j', async (name, value, accepted) => {
  await scene.app.sql(`update users set role = 'admin' where id = ?`, user.id);
  const { access } = await scene.signIn(user);
  const { status } = await scene.call('GET', `/v1/users?${name}=${encodeURIComponent(value)}`, { token: access });
  const list = operations.find((one) => one.name === 'GET /v1/users');
  const schema = list?.operation.parameters?.find((parameter) => parameter.name === name)?.schema;
  const typed = name === 'q' ? value : Number(value);
  expect({ server: status === 200, document: requestValidator(schema!)(typed) }).toEqual({
    server: accepted,
    document: accepted,
  });
});

it('no union, and no enumeration with null: generators of Kotlin and Swift break on them', () => {
  const text = JSON.stringify(openApi);
  expect(text).not.toMatch(/"(oneOf|anyOf|allOf)"/);
  expect(text).not.toMatch(/"enum":\[[^\]]*null/);
});

it('every operation has a name of its own', () => {
  const names = operations.map(({ operation }) => operation.operationId);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name).toMatch(/^[a-z][A-Za-z0-9]*$/);
});
