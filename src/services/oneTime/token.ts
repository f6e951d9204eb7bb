import { createHash, randomBytes } from 'node:crypto';

import type { OneTimeTokenRow } from '../../db/schema';

/** The action that a mailed token permits. */
export type OneTimePurpose = OneTimeTokenRow['purpose'];

/** A prefix for each purpose: leaked tokens can be recognised, and no token works for another purpose. */
const PREFIX = {
  recovery: 'gotr1',
  verification: 'gotv1',
  'email-change': 'gotc1',
  'email-undo': 'gotu1',
  deletion: 'gotd1',
} as const satisfies Record<OneTimePurpose, string>;

const FORM = {
  recovery: /^gotr1\.[\w-]{43}$/,
  verification: /^gotv1\.[\w-]{43}$/,
  'email-change': /^gotc1\.[\w-]{43}$/,
  'email-undo': /^gotu1\.[\w-]{43}$/,
  deletion: /^gotd1\.[\w-]{43}$/,
} as const satisfies Record<OneTimePurpose, RegExp>;

/**
 * 256 random bits, base64url, after the purpose's prefix. The last character is never `-` or `_`: mail programs cut these
 * off links.
 */
export function newOneTimeToken(purpose: OneTimePurpose): string {
  return `${PREFIX[purpose]}.${randomBytes(32).toString('base64url')}`;
}

/**
 * The token's hash, as stored in the database; `undefined` for a text that cannot be a token, so that garbage costs no
 * query.
 */
export function oneTimeHash(token: string, purpose: OneTimePurpose): string | undefined {
  return FORM[purpose].test(token) ? createHash('sha256').update(token).digest('base64url') : undefined;
}
