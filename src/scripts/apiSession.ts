import { setTimeout as delay } from 'node:timers/promises';

import { UserError } from './cli.ts';

export interface ApiAnswer {
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

/** An access token that somebody else has, or an account to log in to for as long as this lasts. */
export type Credentials = { token: string } | { email: string; password: string };

/** Calls of the API with a token. */
export interface ApiSession {
  /**
   * Waits as `Retry-After` says on 409, 429 and 503.
   *
   * @returns `undefined` when no answer came: whether it was carried out is not known
   * @throws {UserError} for any other refusal
   */
  call(method: 'GET' | 'POST', path: string): Promise<ApiAnswer | undefined>;
  /** Logs out, if it has logged in. */
  close(): Promise<void>;
}

/** So many refusals in a row are enough. */
const PATIENCE = 20;
const EXPIRED = new Set(['TOKEN_EXPIRED', 'TOKEN_SUPERSEDED']);

/** @throws {UserError} when the login is refused, or nobody answers */
export async function openSession({ url, credentials, signal, notice }: ApiOptions): Promise<ApiSession> {
  let access = '';
  let refresh: string | undefined;

  async function send(method: string, path: string, body?: object, until: AbortSignal = signal): Promise<Response> {
    return await fetch(`${url}${path}`, {
      method,
      signal: until,
      // A token does not follow to somebody else.
      redirect: 'error',
      headers: {
        ...(access !== '' && { Authorization: `Bearer ${access}` }),
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }

  /** Answers with tokens in it are for this session. */
  async function authenticate(path: string, body: object): Promise<void> {
    access = '';
    const answer = await patiently(() => send('POST', path, body));
    if (answer === undefined) throw new UserError(`${url} does not answer.`);
    if (answer.status !== 200) throw refused(answer);
    access = String(answer.body['access_token']);
    refresh = String(answer.body['refresh_token']);
  }

  async function patiently(attempt: () => Promise<Response>): Promise<ApiAnswer | undefined> {
    for (let tries = 1; ; tries += 1) {
      let response: Response;
      try {
        response = await attempt();
      } catch {
        signal.throwIfAborted();
        return undefined;
      }
      const answer = { status: response.status, body: await readJson(response) };
      if (![409, 429, 503].includes(answer.status) || tries === PATIENCE) return answer;
      const seconds = Math.min(900, Math.max(1, Number(response.headers.get('Retry-After')) || 5));
      notice(`${titleOf(answer)} (${answer.status}) Waiting ${seconds} s …`);
      await delay(seconds * 1_000, undefined, { signal });
    }
  }

  if ('token' in credentials) access = credentials.token;
  else await authenticate('/v1/auth/login', { ...credentials, device: 'npm run warm' });

  return {
    async call(method, path) {
      let answer = await patiently(() => send(method, path));
      if (answer?.status === 401 && EXPIRED.has(String(answer.body['code'])) && refresh !== undefined) {
        await authenticate('/v1/auth/refresh', { refresh_token: refresh });
        answer = await patiently(() => send(method, path));
      }
      if (answer !== undefined && answer.status >= 400) throw refused(answer);
      return answer;
    },

    async close() {
      if (refresh === undefined) return;
      // The session would end by itself, but count until then.
      await send('POST', '/v1/auth/logout', undefined, AbortSignal.timeout(5_000)).catch(() => undefined);
    },
  };
}

async function readJson(response: Response): Promise<ApiAnswer['body']> {
  try {
    return ((await response.json()) as ApiAnswer['body'] | null) ?? {};
  } catch {
    return {};
  }
}

function titleOf({ body: { detail, title } }: ApiAnswer): string {
  return [detail, title].find((text) => typeof text === 'string') ?? 'The API refuses';
}

function refused(answer: ApiAnswer): UserError {
  const { code } = answer.body;
  const hint = EXPIRED.has(String(code)) ? ' Get a new one; the same command then goes on where it was.' : '';
  return new UserError(`${titleOf(answer).replace(/\p{Cc}/gu, ' ')} (${answer.status})${hint}`);
}
