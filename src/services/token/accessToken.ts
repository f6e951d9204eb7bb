import { SignJWT, errors, importJWK, jwtVerify } from 'jose';
import type { CryptoKey, JWK, JWTPayload } from 'jose';
import * as z from 'zod';

import type { Config, KeySetConfig } from '../../config/env';
import { AppError } from '../../errors';
import { BoundedMap } from '../../util/boundedMap';
import { userOfSession } from '../../redis/keys';

/** The claims of an access token (RFC 9068), apart from issuer, audience and times. */
export interface AccessClaims {
  userId: string;
  sessionId: string;
  tokenId: string;
  role: 'user' | 'admin';
  /** Versions of the user when it was issued: see `blacklist.service`. */
  epoch: number;
  accessVersion: number;
  /** Generation of the refresh token that was issued with it. */
  generation: number;
  /** When the user last confirmed the password, in seconds since the epoch; `undefined` if unknown. */
  authenticatedAt: number | undefined;
  /** Seconds since the epoch. */
  expiresAt: number;
}

/** The claims to sign. An omitted `jti` becomes a random one. */
export type NewClaims = Omit<AccessClaims, 'expiresAt' | 'tokenId' | 'authenticatedAt'> &
  Partial<Pick<AccessClaims, 'tokenId' | 'authenticatedAt'>>;

const claimsSchema = z
  .object({
    sub: z.string().min(1).max(64),
    sid: z.string().min(1).max(128),
    jti: z.string().min(1).max(64),
    role: z.enum(['user', 'admin']),
    ep: z.number().int().min(0),
    av: z.number().int().min(0),
    gen: z.number().int().min(1),
    auth_time: z.number().int().min(0).optional(),
    iat: z.number().int(),
    exp: z.number().int(),
  })
  // A session's denials are looked up with its user's.
  .refine(({ sub, sid }) => userOfSession(sid) === sub);

/** RFC 9068 section 2.1. */
const TYPE = 'at+jwt';
/**
 * A signature with Ed25519 is named `EdDSA`: PyJWT, jwcrypto, Authlib and Crypt::JWT refuse `Ed25519`, its new name in RFC
 * 9864. Both are accepted.
 */
const ALGORITHMS = ['EdDSA', 'Ed25519', 'ES256'];
/** The app's tokens have about 500 bytes. */
const MAX_LENGTH = 2_048;
/** A token is accepted for this long after its expiry, because clocks differ. */
export const CLOCK_TOLERANCE_SECONDS = 5;

interface Keyring {
  active: { kid: string; alg: string; key: CryptoKey };
  verification: ReadonlyMap<string, CryptoKey>;
}

/** Signs and verifies access tokens. Holds only plain data and imported keys, so one instance serves an isolate. */
export interface AccessTokens {
  sign(claims: NewClaims, ttlSeconds: number): Promise<string>;
  /** Does not check revocation. @throws {AppError} `INVALID_TOKEN` or `TOKEN_EXPIRED` */
  verify(token: string): Promise<AccessClaims>;
  /** The public keys (RFC 7517): those in use for verification, and future ones. */
  jwks(): { keys: JWK[] };
}

export function createAccessTokens(config: Config, now: () => number): AccessTokens {
  const { issuer, audience } = config;
  let keyring: Promise<Keyring> | undefined;
  /** A token's signature is checked once per isolate, its times and its revocation on every request. */
  const verified = new BoundedMap<string, AccessClaims>(2_000);

  // Imported on first use, because crypto does not run while the module is being evaluated.
  const keys = () =>
    (keyring ??= importKeys(config.signingKeys).catch(() => {
      keyring = undefined;
      throw new AppError('CONFIG_INVALID', { detail: 'Configuration wrong: SIGNING_KEYS (a key cannot be imported)' });
    }));

  return {
    async sign(claims, ttlSeconds) {
      const { active } = await keys();
      const issuedAt = Math.floor(now() / 1_000);
      return new SignJWT({
        sid: claims.sessionId,
        role: claims.role,
        ep: claims.epoch,
        av: claims.accessVersion,
        gen: claims.generation,
        // RFC 9068, section 2.2.1.
        ...(claims.authenticatedAt !== undefined && { auth_time: claims.authenticatedAt }),
      })
        .setProtectedHeader({ alg: active.alg, typ: TYPE, kid: active.kid })
        .setIssuer(issuer)
        .setAudience(audience)
        .setSubject(claims.userId)
        .setJti(claims.tokenId ?? crypto.randomUUID())
        .setIssuedAt(issuedAt)
        .setExpirationTime(issuedAt + ttlSeconds)
        .sign(active.key);
    },

    async verify(token) {
      const known = verified.get(token);
      if (known !== undefined) {
        if (known.expiresAt + CLOCK_TOLERANCE_SECONDS <= Math.floor(now() / 1_000)) throw new AppError('TOKEN_EXPIRED');
        return known;
      }
      if (!isCanonical(token)) throw new AppError('INVALID_TOKEN');
      const { verification } = await keys();
      const payload = await checked(token, {
        verification,
        issuer,
        audience,
        maxAgeSeconds: config.tokens.accessTtlSeconds + CLOCK_TOLERANCE_SECONDS,
        at: new Date(now()),
      });
      const parsed = claimsSchema.safeParse(payload);
      if (!parsed.success) throw new AppError('INVALID_TOKEN');
      const { sub, sid, jti, role, ep, av, gen, auth_time: authenticatedAt, iat, exp } = parsed.data;
      const claims: AccessClaims = {
        userId: sub,
        sessionId: sid,
        tokenId: jti,
        role,
        epoch: ep,
        accessVersion: av,
        generation: gen,
        authenticatedAt,
        // Ignore the token's own later expiry: once remembered, the claims must not outlive the lifetime allowed now.
        expiresAt: Math.min(exp, iat + config.tokens.accessTtlSeconds),
      };
      verified.set(token, claims);
      return claims;
    },

    jwks: () => ({ keys: config.signingKeys.keys.map(publicPart) }),
  };
}

interface CheckOptions {
  verification: ReadonlyMap<string, CryptoKey>;
  issuer: string;
  audience: string;
  maxAgeSeconds: number;
  at: Date;
}

async function checked(token: string, options: CheckOptions): Promise<JWTPayload> {
  try {
    const { payload } = await jwtVerify(
      token,
      ({ kid }) => {
        const key = kid === undefined ? undefined : options.verification.get(kid);
        if (key === undefined) throw new errors.JWKSNoMatchingKey();
        return key;
      },
      {
        typ: TYPE,
        algorithms: ALGORITHMS,
        issuer: options.issuer,
        audience: options.audience,
        requiredClaims: ['exp', 'iat', 'sub', 'jti', 'sid'],
        maxTokenAge: options.maxAgeSeconds,
        clockTolerance: CLOCK_TOLERANCE_SECONDS,
        currentDate: options.at,
      },
    );
    return payload;
  } catch (error) {
    // Includes tokens with a longer lifetime than is allowed now: a refresh brings a new one.
    if (error instanceof errors.JWTExpired) throw new AppError('TOKEN_EXPIRED');
    throw new AppError('INVALID_TOKEN');
  }
}

/** Requires the compact form, and canonical base64url in each part: otherwise one token could be written in many ways. */
function isCanonical(token: string): boolean {
  if (token.length > MAX_LENGTH || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(token)) return false;
  return token.split('.').every((part) => Buffer.from(part, 'base64url').toString('base64url') === part);
}

async function importKeys({ keys }: KeySetConfig): Promise<Keyring> {
  const verification = new Map<string, CryptoKey>();
  let active: Keyring['active'] | undefined;
  for (const key of keys) {
    const alg = algorithmOf(key);
    // A key verifies only with its own algorithm, regardless of a token's header.
    verification.set(key.kid, (await importJWK(publicPart(key), alg)) as CryptoKey);
    if (key.state === 'active')
      active = { kid: key.kid, alg, key: (await importJWK(privatePart(key), alg)) as CryptoKey };
  }
  if (active === undefined) throw new AppError('CONFIG_INVALID', { detail: 'SIGNING_KEYS has no active key' });
  return { active, verification };
}

const algorithmOf = ({ kty }: KeySetConfig['keys'][number]) => (kty === 'EC' ? 'ES256' : 'EdDSA');

/** Only the key's numbers: members such as `key_ops` and `ext` would change the permissions of the imported key. */
function privatePart(key: KeySetConfig['keys'][number]): JWK {
  const { kty, crv, x, y, d } = key as JWK & { kty: string };
  return Object.fromEntries(Object.entries({ kty, crv, x, y, d }).filter(([, value]) => value !== undefined));
}

/** Only the members that may be published. */
function publicPart(key: KeySetConfig['keys'][number]): JWK {
  const { kty, kid, crv, x, y } = key as JWK & { kty: string; kid: string };
  const members = { crv, x, y, alg: algorithmOf(key), use: 'sig' };
  return { kty, kid, ...Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) };
}
