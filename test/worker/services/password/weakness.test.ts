import { describe, expect, test } from 'vitest';

import { createWeakness } from '../../../../src/services/password/weakness';

const owner = { email: 'grace.hopper@navy.example', name: 'Grace Höpper' };
const weakness = createWeakness({ issuer: 'https://ledger.example.com', audience: 'acme-books' });

const COMMON = 'is one of the most common passwords';
const OWN = 'must have 8 more characters than the words of your name, your e-mail address and this service';

describe('a new password is refused', () => {
  test.each([
    ['most common', 'password', COMMON],
    ['in other letter case', 'PassWord', COMMON],
    ['in full-width letters', '\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44', COMMON],
    ['digits', '12345678', COMMON],
    ['the e-mail address', 'grace.hopper@navy.example', OWN],
    ['an e-mail address of short words', 'al@abc.ex2026!', OWN],
    ['the local part', 'Grace.Hopper', OWN],
    ['the name and a year', 'h\u00d6pper1906!', OWN],
    ['the name composed otherwise', 'ho\u0308pper1906!', OWN],
    ['the service and a year', 'ledger2026', OWN],
    ['the product and a number', 'ACME-books-1', OWN],
    ['a name before a common password', 'grace12345678', OWN],
  ])('%s', (_name, password, detail) => {
    const { email } = password.startsWith('al@') ? { email: 'al@abc.ex' } : owner;
    expect(weakness(password, { ...owner, email })).toBe(detail);
  });
});

test.each([
  ['others', 'correct horse battery'],
  ['eight characters beside the name', 'grace&bananas'],
  ['short words of the owner, which are in much else', 'panning for gold'],
  ['a common one within', 'mypassword-is-this'],
  ['no Latin letters', '\u0441\u043b\u043e\u0436\u043d\u044b\u0439 \u043f\u0430\u0440\u043e\u043b\u044c'],
])('%s are accepted', (_name, password) => {
  expect(weakness(password, { ...owner, name: 'Ann Grace' })).toBeUndefined();
});
