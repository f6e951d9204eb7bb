import type { Config } from '../../config/env';
import { passwords as commonPasswords } from './commonPasswords.json';

/** The owner of a new password. */
export interface Owner {
  email: string;
  name: string;
}

/** Shorter words occur in too many good passwords. */
const MIN_WORD = 4;
/** The least length of a password without its owner's words: the minimum length of any password. */
const MIN_OWN = 8;

/** Loaded at first use: most isolates see no new password. */
let common: ReadonlySet<string> | undefined;

/**
 * The weakness of a new password; `undefined` if it has none. A password is weak if it is one of the most common ones
 * (OWASP ASVS 5.0, 6.2.4). It is also weak if fewer than eight characters, or a common password, remain without the words
 * that attackers try first (6.2.11; NIST SP 800-63B, "context-specific words"): those of the owner's e-mail address and
 * name, of ISSUER's host and of AUDIENCE. Letter case and the width of characters are ignored.
 */
export function createWeakness({ issuer, audience }: Pick<Config, 'issuer' | 'audience'>) {
  const product = `${new URL(issuer).hostname} ${audience}`;

  return function weakness(password: string, { email, name }: Owner): string | undefined {
    const folded = fold(password);
    if (isCommon(folded)) return 'is one of the most common passwords';
    let own = folded;
    for (const word of [fold(email), ...wordsOf(`${email} ${name} ${product}`)]) own = own.replaceAll(word, '');
    if (own !== folded && (Array.from(own).length < MIN_OWN || isCommon(own))) {
      return `must have ${MIN_OWN} more characters than the words of your name, your e-mail address and this service`;
    }
    return undefined;
  };
}

function isCommon(folded: string): boolean {
  common ??= new Set(commonPasswords);
  return common.has(folded);
}

/** The longest first: otherwise a short word could split a longer one. */
function wordsOf(text: string): string[] {
  const words = fold(text)
    .split(/[^\p{L}\p{M}\p{N}]+/u)
    .filter((word) => word.length >= MIN_WORD);
  return [...new Set(words)].sort((a, b) => b.length - a.length);
}

/** Treats compatibility forms (such as full-width letters) and letter cases as equal. */
function fold(text: string): string {
  return text.normalize('NFKC').toLowerCase();
}
