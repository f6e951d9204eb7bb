import { importJWK, jwtVerify } from 'jose';
import type { CryptoKey, JWK } from 'jose';

/** The bindings of every peer. */
export interface Bindings {
  DB: D1Database;
  UPSTASH_REDIS_REST_URL: string;
  UPSTASH_REDIS_REST_TOKEN: string;
  ISSUER: string;
  AUDIENCE: string;
  PUBLIC_KEY: string;
  PREFIX: string;
}

/** The response of every case. */
export interface User {
  id: string;
  email: string;
  emailVerified: boolean;
  name: string;
  role: string;
  status: string;
  createdAt: string;
  updatedAt: string;
}

export async function loadUser(db: D1Database, id: string): Promise<User | null> {
  const row = await db.prepare('SELECT * FROM users WHERE id = ?').bind(id).first();
  if (row === null) return null;
  return {
    id: String(row['id']),
    email: String(row['email']),
    emailVerified: row['email_verified_at_ms'] !== null,
    name: String(row['name']),
    role: String(row['role']),
    status: String(row['status']),
    createdAt: timestamp(Number(row['created_at_ms'])),
    updatedAt: timestamp(Number(row['updated_at_ms'])),
  };
}

/** In whole seconds, as the app shows it. */
function timestamp(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

let key: Promise<CryptoKey | Uint8Array> | undefined;

/** Who is asking, by jose as its documentation shows it; the key is imported once. */
export async function verify(env: Bindings, header: string | undefined): Promise<{ sub: string; jti: string } | null> {
  if (!header?.startsWith('Bearer ')) return null;
  try {
    key ??= importJWK(JSON.parse(env.PUBLIC_KEY) as JWK, 'Ed25519');
    const { payload } = await jwtVerify(header.slice(7), await key, {
      issuer: env.ISSUER,
      audience: env.AUDIENCE,
      algorithms: ['EdDSA', 'Ed25519'],
      typ: 'at+jwt',
    });
    return payload.sub === undefined || payload.jti === undefined ? null : { sub: payload.sub, jti: payload.jti };
  } catch {
    return null;
  }
}
