import { timingSafeEqual } from 'node:crypto';

/** What a token allows. */
export type Access = 'full' | 'read-only';

/** Decides what a presented token allows; `undefined`: nothing. */
export type Authenticate = (token: string | undefined) => Access | undefined;

/** Compares tokens in constant time (only their length can be learnt). */
export function createAuthenticate(token: string, readOnlyToken?: string): Authenticate {
  const full = Buffer.from(token);
  const readOnly = readOnlyToken === undefined ? undefined : Buffer.from(readOnlyToken);
  return function authenticate(presented) {
    if (presented === undefined) return undefined;
    const bytes = Buffer.from(presented);
    if (same(bytes, full)) return 'full';
    if (readOnly && same(bytes, readOnly)) return 'read-only';
    return undefined;
  };
}

/** The token of an `Authorization: Bearer …` header (RFC 6750; the scheme's case does not matter). */
export function bearerToken(header: string | undefined): string | undefined {
  if (header === undefined || header.length < 8 || header.slice(0, 7).toLowerCase() !== 'bearer ') return undefined;
  return header.slice(7).trim();
}

function same(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}
