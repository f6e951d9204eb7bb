import { request as httpRequest } from 'node:http';
import { randomBytes } from 'node:crypto';

import { createRefreshTokens } from '../../../src/services/token/refreshToken.ts';
import { newcomer } from '../../support/client.ts';
import type { Documented } from '../../support/contract/contract.ts';
import { examine } from '../../support/contract/exchange.ts';
import type { Place } from '../../support/contract/exchange.ts';
import { startMailbox } from '../../support/mailbox.ts';
import type { Mailbox } from '../../support/mailbox.ts';
import { forge, newKey, signingKeys } from '../attacks/forge.ts';
import type { Claims } from '../attacks/forge.ts';
import { startScene } from '../faults/scene.ts';
import type { Account, Scene, SignedIn } from '../faults/scene.ts';

/** What is sent for an operation. Bodies are text or bytes; an object is sent as JSON. */
export interface Request {
  /** With its parameters filled in, and a query. @default the document's path, with `x` for each parameter */
  path?: string;
  token?: string;
  body?: object | string | Buffer;
  type?: string;
  headers?: Record<string, string>;
}

/** An app with accounts in every state, and a record of what it was asked and has answered. */
export interface World extends AsyncDisposable {
  scene: Scene;
  mailbox: Mailbox;
  admin: Account & SignedIn;
  /** A new user each time: what one request changes does not matter to the next. */
  newUser(): Promise<Account & SignedIn>;
  send(documented: Documented, request?: Request): Promise<{ status: number; headers: Headers; body: unknown }>;
  /** The user's access token as it is an hour after it was issued. */
  expired(user: SignedIn): string;
  /** A refresh token of a session that has reached its absolute end. */
  endedRefreshToken(user: SignedIn): string;
  /** `operation status code`, of each that was seen. */
  seen: Set<string>;
  faults: string[];
}

export const placeName = ({ operation, status, code }: Place) => [operation, status, code].filter(Boolean).join(' ');

/** Sends requests, and compares each exchange with the document. */
export function senderTo(appUrl: string): Pick<World, 'send' | 'seen' | 'faults'> {
  const seen = new Set<string>();
  const faults: string[] = [];
  let addresses = 0;

  /** Not fetch: it sends no body with GET. */
  async function send({ method, path: template }: Documented, request: Request = {}) {
    const { path = template.replace(/\{[\w-]+\}/g, 'x'), token, type = 'application/json', headers = {} } = request;
    const { body } = request;
    const text = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    const bytes = Buffer.from(text ?? '');
    const url = `${appUrl}${path}`;
    const exchange = await new Promise<{ status: number; headers: Headers; body: string }>((resolve, reject) => {
      const sending = httpRequest(
        url,
        {
          method,
          headers: {
            'CF-Connecting-IP': `198.18.0.${(addresses = (addresses % 250) + 1)}`,
            ...(text !== undefined && { 'Content-Type': type, 'Content-Length': bytes.length }),
            ...(token !== undefined && { Authorization: `Bearer ${token}` }),
            ...headers,
          },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            const given = Object.entries(response.headers).map(([name, value]): [string, string] => [
              name,
              String(value),
            ]);
            resolve({
              status: response.statusCode ?? 0,
              headers: new Headers(given),
              body: Buffer.concat(chunks).toString(),
            });
          });
        },
      );
      sending.on('error', reject).end(bytes);
    });
    const { place, faults: found } = examine({
      method,
      url,
      request: { type: text === undefined ? '' : type, ...(text !== undefined && { body: bytes.toString() }) },
      ...exchange,
    });
    if (place !== undefined) seen.add(placeName(place));
    faults.push(...found);
    const json = exchange.headers.get('Content-Type')?.includes('json') === true;
    return { ...exchange, body: json ? (JSON.parse(exchange.body) as unknown) : exchange.body };
  }

  return { send, seen, faults };
}

export async function startWorld(settings: Record<string, string> = {}): Promise<World> {
  const key = newKey('contract-1');
  const secret = randomBytes(32).toString('base64url');
  const refreshKeys = {
    keys: [{ kty: 'oct' as const, k: secret, kid: 'contract-r1', alg: 'HS256', state: 'active' as const }],
  };
  const mailbox = await startMailbox();
  const scene = await startScene(
    {
      SIGNING_KEYS: signingKeys({ active: key }),
      REFRESH_KEYS: JSON.stringify(refreshKeys),
      REFRESH_GRACE_SECONDS: '0',
      ...settings,
    },
    mailbox,
  );
  const claimsOf = (token: string) =>
    JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as Claims;

  const admin = await scene.newAccount();
  await scene.app.sql(`update users set role = 'admin', access_version = access_version + 1 where id = ?`, admin.id);
  Object.assign(admin, await scene.signIn(admin));

  return {
    scene,
    mailbox,
    admin,
    newUser: () => scene.newAccount(),
    ...senderTo(scene.app.url),
    expired({ access }) {
      const claims = claimsOf(access);
      const issuedAt = Number(claims['iat']) - 3_600;
      return forge(key, { ...claims, iat: issuedAt, exp: issuedAt + 900 });
    },
    endedRefreshToken({ sessionId }) {
      const long = createRefreshTokens(refreshKeys, () => 0);
      return long.mint({ sessionId, generation: 1, epoch: 1, expiresAtMs: Date.now() - 1_000 });
    },
    async [Symbol.asyncDispose]() {
      await scene[Symbol.asyncDispose]();
      await mailbox[Symbol.asyncDispose]();
    },
  };
}

export { newcomer };
