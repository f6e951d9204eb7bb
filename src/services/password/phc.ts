import type { ScryptParameters } from '../../config/env';

/** A stored password. */
export interface PasswordHash {
  parameters: ScryptParameters;
  /** `kid` of the pepper; `undefined` without a pepper. */
  keyId: string | undefined;
  salt: Buffer;
  hash: Buffer;
}

const PHC =
  /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})(?:,keyid=([A-Za-z0-9+/]{1,64}))?\$([A-Za-z0-9+/]{22,86})\$([A-Za-z0-9+/]{43,86})$/;

/**
 * A PHC string (https://github.com/P-H-C/phc-string-format): `$scrypt$ln=15,r=8,p=3,keyid=…$salt$hash`. As specified for
 * Argon2, `keyid` follows the costs, in PHC's B64, which has neither `-` nor `_`. A `kid` of `npm run keys` has the
 * permitted eight bytes.
 */
export function formatPhc({ parameters: { ln, r, p }, keyId, salt, hash }: PasswordHash): string {
  const key = keyId === undefined ? '' : `,keyid=${keyId.replaceAll('-', '+').replaceAll('_', '/')}`;
  return `$scrypt$ln=${ln},r=${r},p=${p}${key}$${b64(salt)}$${b64(hash)}`;
}

/** `undefined` if the text is not a scrypt PHC string. */
export function parsePhc(text: string): PasswordHash | undefined {
  const match = PHC.exec(text);
  if (match === null) return undefined;
  const [, ln, r, p, keyId, salt = '', hash = ''] = match;
  return {
    parameters: { ln: Number(ln), r: Number(r), p: Number(p) },
    keyId: keyId?.replaceAll('+', '-').replaceAll('/', '_'),
    salt: Buffer.from(salt, 'base64'),
    hash: Buffer.from(hash, 'base64'),
  };
}

function b64(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '');
}
