import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto';
import type { JsonWebKey } from 'node:crypto';

// With its extension, because the scripts run this module in Node without a bundler.
import { ed25519PointFault } from './ed25519.ts';

/** Order of P-256 (FIPS 186-5, SP 800-186 section 3.2.1.3). */
const P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

/** 32 random bytes have fewer distinct values than this about once in 10^11 sets. */
const LEAST_DISTINCT = 16;

/** The bytes of base64url text; `undefined` unless it is the canonical spelling. */
export function bytesOf(text: unknown): Buffer | undefined {
  if (typeof text !== 'string' || text === '') return undefined;
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : undefined;
}

/**
 * Why bytes are not a random secret: constant, repeating or counting ones, or text that a person could have typed. It
 * cannot prove entropy; it finds placeholders and passphrases.
 */
export function entropyFault(bytes: Uint8Array): string | undefined {
  const steps = bytes.map((byte, index) => byte - (bytes[index - 1] ?? 0));
  if (new Set(bytes).size < LEAST_DISTINCT || new Set(steps).size < LEAST_DISTINCT) return 'is not random';
  return bytes.every((byte) => byte >= 0x20 && byte < 0x7f) ? 'is text, not random bytes' : undefined;
}

/** A test message for the keys; its signatures are never stored or sent. */
const PROBE = Buffer.from('gatehouse key check');

/**
 * The fault of a signing key's numbers, whose lengths were checked before. A private key signs once, and its public part must
 * verify the signature.
 */
export function signingFault(key: Readonly<Record<string, unknown>>): string | undefined {
  const { kty, crv, x, y, d } = key;
  const publicJwk = (kty === 'EC' ? { kty, crv, x, y } : { kty, crv, x }) as JsonWebKey;
  if (kty === 'OKP') {
    const fault = ed25519PointFault(bytesOf(x)!);
    if (fault !== undefined) return fault;
  }
  const publicKey = attempt(() => createPublicKey({ key: publicJwk, format: 'jwk' }));
  if (publicKey === undefined) return 'has an x and y that are not a point of its curve';
  if (d === undefined) return undefined;

  const secret = bytesOf(d)!;
  const weakness = entropyFault(secret);
  if (weakness !== undefined) return `has a d that ${weakness}`;
  if (kty === 'EC' && BigInt(`0x${secret.toString('hex')}`) >= P256_ORDER)
    return 'has a d beyond the order of its curve';
  const hash = kty === 'EC' ? 'sha256' : null;
  const proven = attempt(() => {
    const privateKey = createPrivateKey({ key: { ...publicJwk, d: d as string }, format: 'jwk' });
    return verify(hash, PROBE, publicKey, sign(hash, PROBE, privateKey));
  });
  return proven === true ? undefined : `has a d that does not belong to its x${kty === 'EC' ? ' and y' : ''}`;
}

/** OpenSSL and BoringSSL throw errors of different kinds for the same fault, and none of them names it. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
