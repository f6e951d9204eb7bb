import { createHmac, randomBytes, scryptSync, timingSafeEqual } from 'node:crypto';

import type { Config, ScryptParameters } from '../config/env';
import { AppError } from '../errors';
import { createBreachLookup } from './password/breaches';
import type { BreachInstruments } from './password/breaches';
import { HashQueue } from './password/hashQueue';
import type { HashInstruments } from './password/hashQueue';
import { formatPhc, parsePhc } from './password/phc';
import type { PasswordHash } from './password/phc';
import { createWeakness } from './password/weakness';
import type { Owner } from './password/weakness';
import { currentSpans, facade } from './scope';
import { maybeInSpan } from '../util/spans';

/** Derives a key from a password in NFC (RFC 7914). Blocks the isolate while it runs. */
export type Derive = (password: string, salt: Buffer, length: number, parameters: ScryptParameters) => Buffer;

export interface PasswordService {
  /**
   * Refuses a new password that is very common, consists mostly of words of its owner, or is known from a breach, if
   * BREACHED_PASSWORDS_URL names a service for that.
   *
   * @param pointer its place in the body, such as `/newPassword`
   * @throws {AppError} `VALIDATION_FAILED`
   */
  check(password: string, owner: Owner, pointer: string): Promise<void>;
  /**
   * The password's PHC string, to be stored. The password is normalized to NFC, so accents from different keyboards are
   * equal.
   *
   * @throws {AppError} `SERVICE_UNAVAILABLE` when too many hashes are waiting
   */
  hash(password: string): Promise<string>;
  /**
   * Whether this is the password. Pass `undefined` for an account that does not exist: it costs as much as a password
   * hashed with the present settings. `rehash`: the stored string has other parameters or another pepper.
   *
   * @throws {AppError} `SERVICE_UNAVAILABLE` when too many hashes are waiting; `CONFIG_INVALID` when the pepper of the
   *   stored string is not in PEPPER_KEYS: a lost key must not look like a wrong password
   */
  verify(stored: string | undefined, password: string): Promise<{ valid: boolean; rehash: boolean }>;
}

declare module './scope' {
  interface ServiceMap {
    password: PasswordService;
  }
}

export const PasswordService: PasswordService = facade('password');

export interface PasswordDeps {
  config: Pick<Config, 'passwords' | 'issuer' | 'audience'>;
  derive?: Derive;
  queue?: HashQueue;
  instruments?: (HashInstruments & BreachInstruments) | undefined;
  fetch?: typeof globalThis.fetch;
}

const BREACHED = 'is in a list of passwords that were found in data breaches';
const SALT_BYTES = 16;
const HASH_BYTES = 32;

/** One per isolate: plain data, and the queue shared by all of its requests. */
export function createPasswordService({
  config,
  derive = scrypt,
  instruments,
  fetch,
  queue = new HashQueue({ max: config.passwords.queueMax, instruments }),
}: PasswordDeps): PasswordService {
  const { scrypt: parameters, pepperKeys } = config.passwords;
  const peppers = new Map(pepperKeys?.keys.map((key) => [key.kid, Buffer.from(String(key['k']), 'base64url')]));
  const activeKeyId = pepperKeys?.keys.find((key) => key.state === 'active')?.kid;
  const isWeak = createWeakness(config);
  const isBreached = createBreachLookup({ settings: config.passwords.breaches, instruments, fetch });

  /** The hash to check against if there is no account. */
  const unknownAccount: PasswordHash = {
    parameters,
    keyId: activeKeyId,
    salt: Buffer.alloc(SALT_BYTES),
    hash: Buffer.alloc(HASH_BYTES),
  };

  /**
   * The pepper is the key of an HMAC over scrypt's result, as in the OWASP Password Storage Cheat Sheet ("Peppering": hash
   * as usual, then HMAC) and NIST SP 800-63B (an additional keyed iteration). scrypt is unchanged, and without the pepper a
   * copy of the database is useless for guessing passwords.
   */
  async function digest(password: string, { parameters, keyId, salt, hash }: PasswordHash): Promise<Buffer> {
    const pepper = keyId === undefined ? undefined : peppers.get(keyId);
    if (keyId !== undefined && pepper === undefined) {
      // This reveals that the account exists, until the fault is repaired. A 401 would be worse: it would send the owner to
      // a password reset, and hide the fault.
      throw new AppError('CONFIG_INVALID', { detail: `PEPPER_KEYS lacks the key ${keyId} of a stored password.` });
    }
    const normal = password.normalize('NFC');
    const length = pepper === undefined ? hash.length : HASH_BYTES;
    const derived = await maybeInSpan(currentSpans(), 'password.hash', {}, () =>
      queue.run(() => derive(normal, salt, length, parameters)),
    );
    return pepper === undefined ? derived : createHmac('sha256', pepper).update(derived).digest();
  }

  return {
    async check(password, owner, pointer) {
      const weakness = isWeak(password, owner);
      const detail = weakness ?? ((await isBreached(password)) ? BREACHED : undefined);
      if (detail !== undefined) throw new AppError('VALIDATION_FAILED', { errors: [{ pointer, detail }] });
    },

    async hash(password) {
      const fresh = { ...unknownAccount, salt: randomBytes(SALT_BYTES) };
      return formatPhc({ ...fresh, hash: await digest(password, fresh) });
    },

    async verify(stored, password) {
      const known = stored === undefined ? unknownAccount : parsePhc(stored);
      if (known === undefined) throw new Error('a stored password hash is not a scrypt PHC string');
      const actual = await digest(password, known);
      const same = actual.length === known.hash.length && timingSafeEqual(actual, known.hash);
      const valid = same && stored !== undefined;
      const current =
        known.keyId === activeKeyId &&
        (['ln', 'r', 'p'] as const).every((name) => known.parameters[name] === parameters[name]);
      return { valid, rehash: valid && !current };
    },
  };
}

function scrypt(password: string, salt: Buffer, length: number, { ln, r, p }: ScryptParameters): Buffer {
  const N = 2 ** ln;
  return scryptSync(password, salt, length, { N, r, p, maxmem: 256 * N * r });
}
