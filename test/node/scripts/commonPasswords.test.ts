import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import { expect, it } from 'vitest';

import { COMMON_PASSWORDS_FILE, commonPasswordsFile } from '../../../src/scripts/commonPasswords.ts';

const { dictionary } = createRequire(import.meta.url)('@zxcvbn-ts/language-common') as {
  dictionary: { 'passwords-common': string[] };
};

const text = readFileSync(COMMON_PASSWORDS_FILE, 'utf8');
const file = JSON.parse(text) as { source: string; license: string; copyright: string; passwords: string[] };

it('is what `npm run passwords` makes of the package that is installed', () => {
  expect(text).toBe(commonPasswordsFile());
});

it('names its source, with version and licence', () => {
  expect(file.source).toMatch(/^@zxcvbn-ts\/language-common \d+\.\d+\.\d+, /);
  expect(file.license).toBe('MIT');
  expect(file.copyright).toContain('Copyright (c) 2021 @zxcvbn-ts');
});

it('holds 3,000 passwords, and no password of 8 characters is more frequent than one of them', () => {
  expect(new Set(file.passwords).size).toBe(3_000);
  const possible = dictionary['passwords-common'].filter((password) => password.length >= 8);
  expect(file.passwords).toEqual(possible.slice(0, 3_000).sort());
});
