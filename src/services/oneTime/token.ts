import { createHash, randomBytes } from 'node:crypto';

import type { OneTimeTokenRow } from '../../db/schema';

/** What a token that was sent by mail is good for. */
export type OneTimePurpose = OneTimeTokenRow['purpose'];

/** Recognisable, for whoever finds one where it should not be; and so that none is good for another purpose. */
const PREFIX = { recovery: 'gotr1', verification: 'gotv1' } as const satisfies Record<OneTimePurpose, string>;

const FORM = {
  recovery: /^gotr1\.[\w-]{43}$/,
  verification: /^gotv1\.[\w-]{43}$/,
} as const satisfies Record<OneTimePurpose, RegExp>;

/** 256 random bits, base64url, after the purpose's prefix. Its last character is never `-` or `_`, which links lose. */
export function newOneTimeToken(purpose: OneTimePurpose): string {
  return `${PREFIX[purpose]}.${randomBytes(32).toString('base64url')}`;
}

/** What the database knows of a token; `undefined` for what cannot be one, so that garbage costs no query. */
export function oneTimeHash(token: string, purpose: OneTimePurpose): string | undefined {
  return FORM[purpose].test(token) ? createHash('sha256').update(token).digest('base64url') : undefined;
}
