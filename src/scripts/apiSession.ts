import { setTimeout as delay } from 'node:timers/promises';

import { UserError } from './cli.ts';

export interface ApiResponse {
  status: number;
  body: Readonly<Record<string, unknown>>;
}

export interface ApiOptions {
  url: string;
  credentials: Credentials;
  /** Ends every call and wait. */
  signal: AbortSignal;
  /** Given a line when there is something to wait for. */
  notice: (line: string) => void;
}

/** An access token from another session, or an account to log in to for as long as this lasts. */
export type Credentials = { token: string } | { email: string; password: string };

/** Calls of the API with a token. */
export interface ApiSession {
  /**
   * Waits as `Retry-After` says on 409, 429 and 503.
   *
   * @returns `undefined` when no response came: whether it was executed is not known
   * @throws {UserError} for any other refusal
   */
  call(method: 'GET' | 'POST', path: string): Promise<ApiResponse | undefined>;
  /** Logs out, if it has logged in. */
  close(): Promise<void>;
}

/** So many refusals in a row are enough. */
const PATIENCE = 20;
const EXPIRED = new Set(['TOKEN_EXPIRED', 'TOKEN_SUPERSEDED']);

/** @throws {UserError} when the login is refused, or the API does not respond */
export async function openSession({ url, credentials, signal, notice }: ApiOptions): Promise<ApiSession> {
  let access = '';
  let refresh: string | undefined;

  async function send(method: string, path: string, body?: object, until: AbortSignal = signal): Promise<Response> {
    return await fetch(`${url}${path}`, {
      method,
      signal: until,
      // A redirect must not carry the token to another server.
      redirect: 'error',
      headers: {
        ...(access !== '' && { Authorization: `Bearer ${access}` }),
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }

  /** Takes the tokens of the response for this session. */
  async function authenticate(path: string, body: object): Promise<void> {
    access = '';
    const response = await patiently(() => send('POST', path, body));
    if (response === undefined) throw new UserError(`${url} does not respond.`);
    if (response.status !== 200) throw refused(response);
    access = String(response.body['access_token']);
    refresh = String(response.body['refresh_token']);
  }

  async function patiently(attempt: () => Promise<Response>): Promise<ApiResponse | undefined> {
    for (let tries = 1; ; tries += 1) {
      let response: Response;
      try {
        response = await attempt();
      } catch {
        signal.throwIfAborted();
        return undefined;
      }
      const read = { status: response.status, body: await readJson(response) };
      if (![409, 429, 503].includes(read.status) || tries === PATIENCE) return read;
      const seconds = Math.min(900, Math.max(1, Number(response.headers.get('Retry-After')) || 5));
      notice(`${titleOf(read)} (${read.status}) Waiting ${seconds} s …`);
      await delay(seconds * 1_000, undefined, { signal });
    }
  }

  if ('token' in credentials) access = credentials.token;
  else await authenticate('/v1/auth/login', { ...credentials, device: 'npm run warm' });

  return {
    async call(method, path) {
      let response = await patiently(() => send(method, path));
      if (response?.status === 401 && EXPIRED.has(String(response.body['code'])) && refresh !== undefined) {
        await authenticate('/v1/auth/refresh', { refresh_token: refresh });
        response = await patiently(() => send(method, path));
      }
      if (response !== undefined && response.status >= 400) throw refused(response);
      return response;
    },

    async close() {
      if (refresh === undefined) return;
      // The session would end by itself, but count until then.
      await send('POST', '/v1/auth/logout', undefined, AbortSignal.timeout(5_000)).catch(() => undefined);
    },
  };
}

async function readJson(response: Response): Promise<ApiResponse['body']> {
  try {
    return ((await response.json()) as ApiResponse['body'] | null) ?? {};
  } catch {
    return {};
  }
}

function titleOf({ body: { detail, title } }: ApiResponse): string {
  return [detail, title].find((text) => typeof text === 'string') ?? 'The API refuses';
}

function refused(response: ApiResponse): UserError {
  const { code } = response.body;
  const hint = EXPIRED.has(String(code)) ? ' Get a new one; the same command then goes on where it was.' : '';
  return new UserError(`${titleOf(response).replace(/\p{Cc}/gu, ' ')} (${response.status})${hint}`);
}
