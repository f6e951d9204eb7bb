import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { newcomer } from '../../support/client.ts';
import { expectQuietLogs, startAttack } from './scene.ts';
import type { AttackScene } from './scene.ts';

let scene: AttackScene;
let token = '';
beforeAll(async () => {
  scene = await startAttack();
  const admin = await scene.newAccount();
  await scene.app.sql("UPDATE users SET role = 'admin', name = 'Admin' WHERE id = ?", admin.id);
  token = (await scene.signIn(admin)).access;
});
afterAll(() => scene[Symbol.asyncDispose]());

async function register(name: string): Promise<string> {
  const person = { ...newcomer(), name };
  const { status, body } = await scene.call('POST', '/v1/auth/register', { body: person });
  expect(status).toBe(201);
  return (body as { user: { id: string } }).user.id;
}

/** The ids that a search finds. @param limit each has lists of its own in the cache */
async function search(q: string, limit = 100) {
  const { status, body } = await scene.call('GET', `/v1/users?limit=${limit}&q=${encodeURIComponent(q)}`, { token });
  expect(status).toBe(200);
  const { items, total } = body as { items: { id: string }[]; total: number };
  expect(total).toBe(items.length);
  return items.map(({ id }) => id).toSorted();
}

/** Letters whose cases SQLite's lower() does not know, or JavaScript's toLowerCase() changes the length of. */
const SPELLINGS: [name: string, spellings: string[]][] = [
  ['Éloïse', ['éloïse', 'ÉLOÏSE', 'E\u0301LOI\u0308SE', 'e\u0301loi\u0308se', 'éLOÏse']],
  ['Straßer', ['STRASSER', 'strasser', 'Straßer', 'STRAẞER', 'traß', 'RASSE']],
  ['İpek', ['i\u0307pek', 'İPEK', 'I\u0307PEK']],
  ['ǅevad', ['ǆevad', 'ǄEVAD', 'DŽEVAD', 'D\u017devad', 'dž']],
  ['Οδυσσεύς', ['ΟΔΥΣΣΕΎΣ', 'οδυσσεύσ', 'ΟΔΥΣΣΕΥ\u0301Σ', 'σσ']],
  ['ﬁnn', ['finn', 'FINN', 'ﬁN']],
  ['Ｗｉｄｅ', ['wide', 'WIDE', 'ｗｉｄｅ']],
  ['Ҙилә', ['ҙилә', 'ҘИЛӘ']],
  ['𐐔𐐯𐐻', ['𐐼𐐯𐐻', '𐐔𐐇𐐓']],
];

describe.each(SPELLINGS)('%s', (name, spellings) => {
  test('is found by each spelling, in whichever order they are asked, from the database and from the cache', async () => {
    const id = await register(name);
    for (const q of [...spellings, name, ...spellings.toReversed()]) expect(await search(q)).toEqual([id]);
    // As the database answers it when no list is cached.
    for (const [index, q] of [name, ...spellings].entries()) expect(await search(q, 10 + index)).toEqual([id]);
  });
});

test('one search caches nothing for another', async () => {
  const [acute, plain] = [await register('Zé'), await register('Ze')];
  let limit = 50;
  for (const order of [
    ['zé', 'ZÉ', 'ze'],
    ['ze', 'ZE\u0301', 'zé'],
  ]) {
    limit += 1;
    for (const q of order) {
      const accented = q.normalize('NFC').toLowerCase() === 'zé';
      expect(await search(q, limit)).toEqual([accented ? acute : plain]);
    }
  }
});

test('long searches are answered, whatever their letters take in bytes', async () => {
  const id = await register('長'.repeat(100));
  expect(await search('長'.repeat(100))).toEqual([id]);
  expect(await search('長'.repeat(60))).toEqual([id]);
  for (const q of [
    'é'.repeat(100),
    'ﷺ'.repeat(100),
    '%'.repeat(100),
    '_'.repeat(100),
    '\\'.repeat(100),
    "'".repeat(100),
  ]) {
    expect(await search(q)).toEqual([]);
  }
  const tooLong = await scene.call('GET', `/v1/users?q=${encodeURIComponent('長'.repeat(101))}`, { token });
  expect([tooLong.status, tooLong.body.code]).toEqual([422, 'VALIDATION_FAILED']);
});

test('patterns and quotes are text', async () => {
  const id = await register(`100%_off' OR "1"='1`);
  for (const q of ['100%', '%_OFF', `' or "1"='1`]) expect(await search(q)).toEqual([id]);
  for (const q of ['%%', '__', '*', '[a-z]', "' OR 1=1 --"]) expect(await search(q)).toEqual([]);
});

test('accounts of the version before are filled by the cron trigger, and found', async () => {
  await scene.app.sql(
    `INSERT INTO users (id, email, name, password_hash, created_at_ms, updated_at_ms)
     VALUES ('before', 'before@example.com', 'ÀLDA Ñandú', '', 1, 1)`,
  );
  await scene.app.scheduled();
  expect(await search('àlda ñANDÚ')).toEqual(['before']);
});

test('the logs say nothing', () => expectQuietLogs(scene, token));
