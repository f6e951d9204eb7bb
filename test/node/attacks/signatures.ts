import { b64 } from './forge.ts';

/** The order of P-256's group (FIPS 186-5). */
export const P256_ORDER = BigInt('0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551');
/** The order of Ed25519's group (RFC 8032, section 5.1). */
const ED25519_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const big = (bytes: Buffer) => BigInt(`0x${bytes.toString('hex')}`);
export const bytes32 = (value: bigint) => Buffer.from(value.toString(16).padStart(64, '0'), 'hex');

/** The other signature that ECDSA has for the same token: (r, n - s). */
export function mirrored(token: string): string {
  const [header, payload, signature = ''] = token.split('.');
  const bytes = Buffer.from(signature, 'base64url');
  return `${header}.${payload}.${b64(Buffer.concat([bytes.subarray(0, 32), bytes32(P256_ORDER - big(bytes.subarray(32)))]))}`;
}

/** The same number modulo the group's order, which a verifier must refuse to reduce (RFC 8032, section 5.1.7). */
export function unreduced(token: string): string {
  const [header, payload, signature = ''] = token.split('.');
  const bytes = Buffer.from(signature, 'base64url');
  const s = big(Buffer.from(bytes.subarray(32)).reverse());
  return `${header}.${payload}.${b64(Buffer.concat([bytes.subarray(0, 32), bytes32(s + ED25519_ORDER).reverse()]))}`;
}

/** A signature in ASN.1, as ECDSA has it outside of JOSE. */
export function inDer(signature: Buffer): Buffer {
  const integer = (part: Buffer) => {
    const bytes = (part[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.alloc(1), part]) : part;
    return Buffer.concat([Buffer.from([2, bytes.length]), bytes]);
  };
  const body = Buffer.concat([integer(signature.subarray(0, 32)), integer(signature.subarray(32))]);
  return Buffer.concat([Buffer.from([0x30, body.length]), body]);
}
