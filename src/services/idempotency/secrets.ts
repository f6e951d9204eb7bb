import { createHmac } from 'node:crypto';

import type { KeySetConfig } from '../../config/env';

/** Identifies one execution. Both parts are HMACs: a key may be guessable, and a body may contain a password. */
export interface ExecutionName {
  /** HMAC over caller, route and key. */
  id: string;
  /** HMAC over query and body. */
  fingerprint: string;
}

/** A response in the form in which it is stored. */
export interface StoredResponse {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: Uint8Array;
}

export interface IdempotencySecrets {
  /** The name under each key of the set. The first is that of the active key, under which new rows are stored. */
  namesOf(parts: readonly string[], content: readonly (string | Uint8Array)[]): readonly ExecutionName[];
  /** Encrypts with the active key, bound to the row with this id. */
  seal(id: string, response: StoredResponse): Promise<string>;
  /** `undefined` for a text that none of the keys has sealed for this id. */
  open(id: string, sealed: string): Promise<StoredResponse | undefined>;
}

const IV_BYTES = 12;

type SealingKey = Awaited<ReturnType<typeof crypto.subtle.importKey>>;

/** Separate keys, derived from those of the refresh tokens: a leak of D1 reveals neither responses nor passwords. */
export function createIdempotencySecrets({ keys }: KeySetConfig): IdempotencySecrets {
  const active = keys.find(({ state }) => state === 'active');
  const ordered = [...keys].sort((a, b) => Number(b === active) - Number(a === active));
  const derived = ordered.map((key) => {
    const secret = Buffer.from(String(key['k']), 'base64url');
    const purpose = (name: string) => createHmac('sha256', secret).update(`gatehouse idempotency ${name}`).digest();
    return { kid: key.kid, names: purpose('names'), sealing: purpose('responses') };
  });
  const imported = new Map<string, Promise<SealingKey>>();

  function sealingKey(kid: string): Promise<SealingKey> | undefined {
    const secret = derived.find((one) => one.kid === kid)?.sealing;
    if (secret === undefined) return undefined;
    const known = imported.get(kid);
    if (known !== undefined) return known;
    const key = crypto.subtle.importKey('raw', secret, 'AES-GCM', false, ['encrypt', 'decrypt']);
    imported.set(kid, key);
    return key;
  }

  return {
    namesOf: (parts, content) =>
      derived.map(({ names }) => ({ id: digest(names, parts), fingerprint: digest(names, ['content', ...content]) })),

    async seal(id, { status, headers, body }) {
      const { kid } = derived[0]!;
      const head = Buffer.from(`${JSON.stringify({ status, headers })}\n`);
      const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
      const parameters = { name: 'AES-GCM', iv, additionalData: Buffer.from(id) };
      const sealed = await crypto.subtle.encrypt(parameters, await sealingKey(kid)!, Buffer.concat([head, body]));
      return `${kid}.${Buffer.from(iv).toString('base64url')}.${Buffer.from(sealed).toString('base64url')}`;
    },

    async open(id, text) {
      const [kid = '', iv = '', sealed = ''] = text.split('.');
      const key = await sealingKey(kid);
      if (key === undefined) return undefined;
      const parameters = { name: 'AES-GCM', iv: Buffer.from(iv, 'base64url'), additionalData: Buffer.from(id) };
      try {
        const plain = Buffer.from(await crypto.subtle.decrypt(parameters, key, Buffer.from(sealed, 'base64url')));
        const end = plain.indexOf('\n');
        const head = JSON.parse(plain.subarray(0, end).toString()) as Pick<StoredResponse, 'status' | 'headers'>;
        return { ...head, body: plain.subarray(end + 1) };
      } catch (error) {
        // Web Crypto throws this for a text that was not sealed with the key.
        if (error instanceof DOMException && error.name === 'OperationError') return undefined;
        throw error;
      }
    },
  };
}

/** Prefixes each part with its length, so that two different lists of parts never give the same text. */
function digest(key: Buffer, parts: readonly (string | Uint8Array)[]): string {
  const hmac = createHmac('sha256', key);
  for (const part of parts) hmac.update(`${Buffer.byteLength(part)}:`).update(part);
  return hmac.digest('base64url');
}
