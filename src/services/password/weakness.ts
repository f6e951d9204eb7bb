import type { Config } from '../../config/env';
import { passwords as commonPasswords } from './commonPasswords.json';

/** Whose password it is to be. */
export interface Owner {
  email: string;
  name: string;
}

/** Words shorter than this are in too much else. */
const MIN_WORD = 4;
/** What must be left of a password without its owner's words: the least that a password may have. */
const MIN_OWN = 8;

/** Made when it is first needed: most isolates see no new password. */
let common: ReadonlySet<string> | undefined;

/**
 * What is wrong with a new password, `undefined` when nothing is: it is one of the most common ones (OWASP ASVS 5.0,
 * 6.2.4), or takes fewer than eight characters, or a common password, beside words that everybody would try first
 * (6.2.11; NIST SP 800-63B, "context-specific words"): those of the owner's e-mail address and name, and of the
 * product's, which are those of ISSUER's host and AUDIENCE. Letter case and the width of characters do not count.
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

/** The longest first, so that none hides a part of another. */
function wordsOf(text: string): string[] {
  const words = fold(text)
    .split(/[^\p{L}\p{M}\p{N}]+/u)
    .filter((word) => word.length >= MIN_WORD);
  return [...new Set(words)].sort((a, b) => b.length - a.length);
}

/** Compatibility forms (full-width letters and the like) and letter case are the same. */
function fold(text: string): string {
  return text.normalize('NFKC').toLowerCase();
}
