import { createHash, timingSafeEqual } from 'node:crypto';

/** The rights of a token. */
export type Access = 'full' | 'read-only';

/** A recognised token. The object represents the token as long as the token is valid. */
export interface Identity {
  readonly access: Access;
}

/** The valid tokens: several of a kind during a rotation. */
export interface Tokens {
  full: readonly string[];
  readOnly: readonly string[];
}

/**
 * Recognises tokens. Compares the SHA-256 with that of every valid token in constant time, so that the duration reveals
 * neither a token's characters nor its length.
 */
export class Authenticator {
  #valid: { identity: Identity; token: string; hash: Buffer }[] = [];

  constructor(tokens: Tokens) {
    this.replace(tokens);
  }

  /** Replaces the tokens. A token that stays valid keeps its identity. */
  replace(tokens: Tokens): void {
    const before = this.#valid;
    const entry = (access: Access) => (token: string) =>
      before.find((known) => known.token === token && known.identity.access === access) ?? {
        identity: { access },
        token,
        hash: sha256(token),
      };
    this.#valid = [...tokens.full.map(entry('full')), ...tokens.readOnly.map(entry('read-only'))];
  }

  /** Whether an identity's token is still valid. */
  isValid(identity: Identity): boolean {
    return this.#valid.some((known) => known.identity === identity);
  }

  recognise(token: string | undefined): Identity | undefined {
    if (token === undefined || token === '') return undefined;
    const hash = sha256(token);
    let found: Identity | undefined;
    for (const known of this.#valid) if (timingSafeEqual(known.hash, hash)) found ??= known.identity;
    return found;
  }
}

/** The token of an `Authorization: Bearer …` header (RFC 6750; the scheme's case does not matter). */
export function bearerToken(header: string | undefined): string | undefined {
  if (header === undefined || header.length < 8 || header.slice(0, 7).toLowerCase() !== 'bearer ') return undefined;
  return header.slice(7).trim();
}

function sha256(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
