import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto';

import { noteBlocked } from '../redis/busy';

/** scrypt's cost: N = 2^ln, block size r, parallelism p (RFC 7914). N·r·p is capped at 2^20 by the runtime. */
export interface ScryptParameters {
  ln: number;
  r: number;
  p: number;
}

/** OWASP's and ASVS's 2^15/8/3: 32 MiB, about a quarter of a second of CPU. */
const SCRYPT_PARAMETERS: ScryptParameters = { ln: 15, r: 8, p: 3 };

const SALT_BYTES = 16;
const HASH_BYTES = 32;

const PHC = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{22,86})\$([A-Za-z0-9+/]{43,86})$/;

/** What an unknown account is checked against, so that it takes as long as a known one. */
const NOBODY = '$scrypt$ln=15,r=8,p=3$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA';

/**
 * A password's PHC string (https://github.com/P-H-C/phc-string-format). The password counts in NFC, so it does not
 * matter which keyboard composed its accents.
 */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES);
  const hash = await derive(password, salt, SCRYPT_PARAMETERS, HASH_BYTES);
  const { ln, r, p } = SCRYPT_PARAMETERS;
  return `$scrypt$ln=${ln},r=${r},p=${p}$${unpadded(salt)}$${unpadded(hash)}`;
}

/**
 * Whether this is the password. `undefined` stands for an account that does not exist: it costs the same time.
 * `rehash` says that the stored string has older parameters.
 */
export async function verifyPassword(
  stored: string | undefined,
  password: string,
): Promise<{ valid: boolean; rehash: boolean }> {
  const match = PHC.exec(stored ?? NOBODY);
  if (match === null) throw new Error('a stored password hash is not a scrypt PHC string');
  const [, ln, r, p, salt = '', hash = ''] = match;
  const parameters: ScryptParameters = { ln: Number(ln), r: Number(r), p: Number(p) };
  const expected = Buffer.from(hash, 'base64');
  const actual = await derive(password, Buffer.from(salt, 'base64'), parameters, expected.length);
  const valid = timingSafeEqual(actual, expected) && stored !== undefined;
  const current = (['ln', 'r', 'p'] as const).every((name) => parameters[name] === SCRYPT_PARAMETERS[name]);
  return { valid, rehash: valid && !current };
}

/**
 * One hash at a time an isolate. The runtime computes it inline, and between two of them the event loop must turn, so
 * that everybody else's answers are taken in. A time, not a promise: a request that dies here must not hold up the rest.
 */
let lockedUntilMs = 0;
const LOCK_MS = 2_000;
const POLL_MS = 2;
/** Between two hashes, for the others: an answer takes a few turns to be taken in. */
const GAP_MS = 5;

async function derive(password: string, salt: Buffer, parameters: ScryptParameters, length: number): Promise<Buffer> {
  while (lockedUntilMs > Date.now()) await sleep(POLL_MS);
  lockedUntilMs = Date.now() + LOCK_MS;
  try {
    const startMs = Date.now();
    const key = await scryptOf(password.normalize('NFC'), salt, length, parameters);
    // The runtime's clock stands still while code runs; it moves on with the event loop.
    await sleep(0);
    noteBlocked(Date.now() - startMs);
    return key;
  } finally {
    lockedUntilMs = Date.now() + GAP_MS;
  }
}

function scryptOf(password: string, salt: Buffer, length: number, { ln, r, p }: ScryptParameters): Promise<Buffer> {
  const N = 2 ** ln;
  return new Promise((resolve, reject) => {
    scrypt(password, salt, length, { N, r, p, maxmem: 256 * N * r }, (error, derived) => {
      if (error === null) resolve(derived);
      else reject(error);
    });
  });
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

function unpadded(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '');
}
