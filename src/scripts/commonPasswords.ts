import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import { ROOT, runProgram } from './cli.ts';

/** How many the Worker refuses: what OWASP ASVS 5.0, 6.2.4, asks for. */
const COUNT = 3_000;

const PACKAGE = '@zxcvbn-ts/language-common';

/** Where the Worker has them. */
export const COMMON_PASSWORDS_FILE = join(ROOT, 'src/services/password/commonPasswords.json');

/**
 * The file's text: of the package's list, which has the most frequent one first, the top {@link COUNT} that are long
 * enough to be accepted as a password. In alphabetical order, which compresses best.
 *
 * @throws {Error} when the list is not what it was
 */
export function commonPasswordsFile(): string {
  const require = createRequire(import.meta.url);
  const { dictionary } = require(PACKAGE) as { dictionary: Record<string, unknown> };
  const list = dictionary['passwords-common'];
  if (!Array.isArray(list) || list[0] !== '123456') throw new Error(`${PACKAGE} has no list by frequency any more`);
  const candidates = new Set((list as string[]).map((password) => password.normalize('NFKC').toLowerCase()));
  const passwords = [...candidates].filter((password) => Array.from(password).length >= 8).slice(0, COUNT);
  if (passwords.length < COUNT) throw new Error(`${PACKAGE} has ${passwords.length} passwords of 8 characters only`);

  // Its package.json is no export of it.
  const folder = join(dirname(require.resolve(PACKAGE)), '..');
  const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Record<string, string>;
  const copyright = readFileSync(join(folder, 'LICENSE.txt'), 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('Copyright'))
    .join('; ');
  const file = {
    source: `${PACKAGE} ${version}, passwords-common: the ${COUNT} most frequent of 8 characters or more`,
    license,
    copyright,
    generator: 'npm run passwords',
    passwords: passwords.sort(),
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

if (import.meta.main) {
  await runProgram(async () => writeFileSync(COMMON_PASSWORDS_FILE, commonPasswordsFile()));
}
