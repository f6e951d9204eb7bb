import * as nodeCrypto from 'node:crypto';

import type { Random } from './random.ts';

/** A key as `crypto.subtle` hands it out: jose looks at these members only. */
interface Key {
  readonly [Symbol.toStringTag]: 'CryptoKey';
  readonly type: 'public' | 'private';
  readonly algorithm: { name: string };
  readonly extractable: boolean;
  readonly usages: readonly string[];
  readonly key: nodeCrypto.KeyObject;
}

/** AES-GCM as Web Crypto has it: the tag stands at the end. */
const AES = 'aes-256-gcm';
const TAG_BYTES = 16;

interface Sealing {
  iv: Uint8Array;
  additionalData: Uint8Array;
}

/**
 * `crypto` and `node:crypto` for one isolate. Everything is computed at once, so that no thread pool decides which of two
 * signatures is ready first, and everything that is random comes from the run's seed.
 *
 * @param random of the isolate that runs at the moment
 */
export function createCrypto(random: () => Random) {
  const randomBytes = (length: number) => Buffer.from(random().bytes(length));
  const randomUUID = () => {
    const bytes = randomBytes(16);
    bytes[6] = (bytes[6]! & 0x0f) | 0x40;
    bytes[8] = (bytes[8]! & 0x3f) | 0x80;
    return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  };

  const webcrypto = {
    randomUUID,
    getRandomValues<T extends Uint8Array>(target: T): T {
      target.set(random().bytes(target.length));
      return target;
    },
    subtle: {
      async importKey(
        format: string,
        jwk: object,
        algorithm: { name: string } | 'AES-GCM',
        extractable: boolean,
        usages: string[],
      ) {
        if (format === 'raw' && algorithm === 'AES-GCM') return nodeCrypto.createSecretKey(jwk as Uint8Array);
        if (format !== 'jwk' || typeof algorithm === 'string') throw new Error(`importKey: ${format} is not simulated`);
        const input = { key: jwk as nodeCrypto.JsonWebKey, format: 'jwk' as const };
        const isPrivate = 'd' in jwk;
        const key = isPrivate ? nodeCrypto.createPrivateKey(input) : nodeCrypto.createPublicKey(input);
        const type = isPrivate ? 'private' : 'public';
        return { [Symbol.toStringTag]: 'CryptoKey', type, algorithm, extractable, usages, key } satisfies Key;
      },
      async sign(_algorithm: unknown, { key }: Key, data: Uint8Array) {
        return new Uint8Array(nodeCrypto.sign(null, data, key)).buffer;
      },
      async verify(_algorithm: unknown, { key }: Key, signature: Uint8Array, data: Uint8Array) {
        return nodeCrypto.verify(null, data, key, signature);
      },
      async encrypt({ iv, additionalData }: Sealing, key: nodeCrypto.KeyObject, data: Uint8Array) {
        const cipher = nodeCrypto.createCipheriv(AES, key, iv).setAAD(additionalData);
        return Buffer.concat([cipher.update(data), cipher.final(), cipher.getAuthTag()]);
      },
      async decrypt({ iv, additionalData }: Sealing, key: nodeCrypto.KeyObject, data: Uint8Array) {
        const text = data.subarray(0, -TAG_BYTES);
        const decipher = nodeCrypto.createDecipheriv(AES, key, iv).setAAD(additionalData);
        decipher.setAuthTag(data.subarray(-TAG_BYTES));
        return Buffer.concat([decipher.update(text), decipher.final()]);
      },
    },
  };

  /** Of `node:crypto` only what is random or slow has another implementation. */
  const forNode = {
    ...nodeCrypto,
    randomBytes,
    randomUUID,
    /** A quarter of a second of memory-hard work is of no use here: an HMAC distinguishes passwords as well. */
    scryptSync: (password: string, salt: Buffer, length: number) =>
      Buffer.concat([nodeCrypto.createHmac('sha512', salt).update(password).digest()]).subarray(0, length),
  };
  return { webcrypto, forNode };
}
