import { createClock } from './clock.ts';
import { IDEMPOTENT, IDEMPOTENT_WITH_KEY } from './contract.ts';
import type { FreshToken, SignedIn, TokenPair } from './contract.ts';
import { ApiError, NetworkError, SessionChangedError } from './errors.ts';
import { createEmitter } from './events.ts';
import { bodyOf, codeOf, readReply } from './reply.ts';
import type { Reply } from './reply.ts';
import { createSessions } from './session.ts';
import { abortable, createTransport, wait } from './transport.ts';
import type { Outgoing } from './transport.ts';
import type { ClientOptions, GatehouseClient, SendOptions, Session } from './types.ts';

/** Everything that `call` sends, whatever the operation. */
interface Parts extends SendOptions {
  params?: Readonly<Record<string, string>>;
  query?: Readonly<Record<string, string | number | boolean | undefined>>;
  body?: unknown;
}

/** Codes of a refused access token. Only a refresh shows whether the session has ended. */
const REFRESHABLE = new Set(['TOKEN_EXPIRED', 'TOKEN_SUPERSEDED', 'TOKEN_REVOKED', 'INVALID_TOKEN']);

/** Refreshes for one request, and the least that the pause before all but the first is drawn from: see `authorized`. */
const RENEWALS = 5;
const RENEWAL_JITTER_MS = 200;

/** RFC 9110, section 9.2.2. */
const REPEATABLE = /^(GET|HEAD|PUT|DELETE|OPTIONS) /;
/** An operation as the contract names it, or a method and a path. */
const isRepeatable = (operation: string) => REPEATABLE.test(operation) || IDEMPOTENT.includes(operation);

export function createClient(options: ClientOptions): GatehouseClient {
  const { storage, timeoutMs = 15_000, retryBudgetMs = 10_000 } = options;
  const { fetch: fetchWith = (...args) => fetch(...args), monotonicNow = () => performance.now() } = options;
  const baseUrl = options.baseUrl.replace(/\/+$/, '');
  const pause = options.wait ?? wait;
  const clock = createClock(monotonicNow);
  const emitter = createEmitter();
  const send = createTransport({
    fetch: fetchWith,
    clock,
    wait: pause,
    timeoutMs,
    retryBudgetMs,
    random: Math.random,
  });

  function requestOf(operation: string, { params = {}, query = {}, body, signal, idempotencyKey }: Parts): Outgoing {
    const [method = 'GET', template = '/'] = operation.split(' ');
    const path = template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params[name] ?? ''));
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, String(value));
    const headers = new Headers({ Accept: 'application/json' });
    if (body !== undefined) headers.set('Content-Type', 'application/json');
    const takesKey = IDEMPOTENT_WITH_KEY.includes(operation);
    // RFC 9651, section 3.3.3.
    const key = (idempotencyKey ?? randomId()).replace(/["\\]/g, '\\$&');
    if (takesKey) headers.set('Idempotency-Key', `"${key}"`);
    return {
      method,
      url: `${baseUrl}${path}${search.size > 0 ? `?${search}` : ''}`,
      headers,
      repeatable: takesKey || isRepeatable(operation),
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(signal !== undefined && { signal }),
    };
  }

  const anonymous = async (operation: string, parts: Parts) =>
    bodyOf(await send(requestOf(operation, parts), readReply));

  const sessions = createSessions({
    storage,
    clock,
    emitter,
    newId: randomId,
    async refresh(token) {
      const pair = await anonymous('POST /v1/auth/refresh', { body: { refresh_token: token } });
      if (!isPair(pair)) throw new NetworkError('Not a response of the API: it has no tokens');
      return pair;
    },
    revoke: (token) => anonymous('POST /v1/auth/revoke', { body: { token } }),
  });

  async function signIn(operation: string, body: unknown, parts: SendOptions = {}): Promise<SignedIn> {
    return sessions.begin(async () => {
      const signedIn = await anonymous(operation, { ...parts, body });
      if (!isPair(signedIn)) throw new NetworkError('Not a response of the API: it has no tokens');
      return signedIn as SignedIn;
    });
  }

  const withToken = (request: Outgoing, session: Session | undefined): Outgoing => {
    const headers = new Headers(request.headers);
    if (session !== undefined) headers.set('Authorization', `Bearer ${session.access_token}`);
    return { ...request, headers };
  };

  /**
   * Sends a request in the present session, once more after a refresh, and again where another process has refreshed too.
   *
   * @param codeOf why a 401 refuses
   */
  async function authorized<T extends { status: number }>(
    request: Outgoing,
    read: (response: Response) => Promise<T>,
    codeOf: (reply: T) => string | undefined | Promise<string | undefined>,
  ): Promise<{ reply: T; session: Session | undefined }> {
    const { signal } = request;
    let session = await abortable(sessions.current(), signal);
    for (let renewals = 0; ; renewals += 1) {
      const sentAtMs = monotonicNow();
      const reply = await send(withToken(request, session), read);
      const tookMs = monotonicNow() - sentAtMs;
      if (session === undefined || reply.status !== 401 || request.once === true) return { reply, session };
      const code = (await codeOf(reply)) ?? '';
      // Processes that share a storage without a lock may refresh at once, each superseding the other's token.
      const again = renewals === 0 ? REFRESHABLE.has(code) : code === 'TOKEN_SUPERSEDED' && renewals < RENEWALS;
      if (!again) return { reply, session };
      // So that they do not meet once more, on a slow network either.
      if (renewals > 0) await pause(Math.random() * Math.max(RENEWAL_JITTER_MS, tookMs) * renewals, signal);
      // Cancelling this request leaves the refresh to the others that wait for it.
      session = await abortable(sessions.renew(session), signal);
    }
  }

  async function inSession<Result>(operation: string, parts: Parts): Promise<Result> {
    const { reply, session } = await authorized(requestOf(operation, parts), readReply, codeOf);
    // Nothing of one user reaches the next one's screen.
    if (session !== undefined) await sessions.assertCurrent(session);
    return bodyOf(reply) as Result;
  }

  /** Sends what replaces the present tokens, once more after a refresh; no refresh runs meanwhile. */
  async function exchange(request: Outgoing, pairOf: (reply: Reply, current: Session) => TokenPair): Promise<void> {
    const attempt = async (session: Session) => {
      let refused = false;
      const renewed = sessions.exchange(session, async (current) => {
        const reply = await send(withToken(request, current), readReply);
        refused = reply.status === 401 && REFRESHABLE.has(codeOf(reply) ?? '');
        const pair = pairOf(reply, current);
        if (!isPair(pair)) throw new NetworkError('Not a response of the API: it has no tokens');
        return pair;
      });
      return renewed.then(
        () => true,
        (error: unknown) => {
          if (refused) return false;
          throw error;
        },
      );
    };
    const session = await sessions.current();
    if (session === undefined) throw new SessionChangedError();
    if (await attempt(session)) return;
    const renewed = await sessions.renew(session);
    if (!(await attempt(renewed))) throw new SessionChangedError();
  }

  return {
    register: (registration, parts) => signIn('POST /v1/auth/register', registration, parts),
    login: (credentials, parts) => signIn('POST /v1/auth/login', credentials, parts),

    async signOut() {
      const session = await sessions.forget('signed-out');
      if (session === undefined) return { confirmed: true };
      try {
        await anonymous('POST /v1/auth/revoke', { body: { token: session.refresh_token } });
        return { confirmed: true };
      } catch (error) {
        if (error instanceof ApiError || error instanceof NetworkError) return { confirmed: false };
        throw error;
      }
    },

    async signOutEverywhere(parts = {}) {
      await inSession('POST /v1/auth/logout-all', parts);
      await sessions.forget('signed-out');
    },

    async deleteAccount(parts = {}) {
      await inSession('DELETE /v1/users/me', parts);
      await sessions.forget('signed-out');
    },

    changePassword: (change, parts = {}) =>
      exchange(requestOf('POST /v1/auth/password', { ...parts, body: change }), (reply) => bodyOf(reply) as TokenPair),

    reauthenticate: (password, parts = {}) =>
      exchange(
        requestOf('POST /v1/auth/reauthenticate', { ...parts, body: { password } }),
        // The refresh token stays.
        (reply, { refresh_token }) => ({ ...(bodyOf(reply) as FreshToken), refresh_token }),
      ),

    isSignedIn: async () => (await sessions.stored()) !== undefined,
    accessToken: async () => (await sessions.current())?.access_token,
    call: (operation, ...[parts = {}]) => inSession(operation, parts),

    async fetch(path, init = {}) {
      const { method = 'GET', body, signal, redirect } = init;
      const headers = new Headers(init.headers);
      const request: Outgoing = {
        method,
        url: `${baseUrl}${path}`,
        headers,
        repeatable: headers.has('Idempotency-Key') || isRepeatable(`${method.toUpperCase()} ${path}`),
        // A stream can be sent only once.
        once: typeof ReadableStream === 'function' && body instanceof ReadableStream,
        ...(body != null && { body }),
        ...(signal != null && { signal }),
        ...(redirect !== undefined && { redirect }),
      };
      const { reply, session } = await authorized(
        request,
        (response) => Promise.resolve(response),
        async (response) => codeOf(await readReply(response.clone())),
      );
      if (session !== undefined) await sessions.assertCurrent(session);
      return reply;
    },

    on: (event, listener) => emitter.on(event, listener),
  };
}

/** A captive portal may answer 200 to anything. */
function isPair(body: unknown): body is TokenPair {
  const { access_token, refresh_token, expires_in } = (body ?? {}) as Partial<TokenPair>;
  return typeof access_token === 'string' && typeof refresh_token === 'string' && typeof expires_in === 'number';
}

/** Names a session, or an attempt; neither is a secret. React Native has no `crypto`. */
function randomId(): string {
  const { crypto } = globalThis as { crypto?: { randomUUID?(): string } };
  return crypto?.randomUUID?.() ?? Array.from({ length: 4 }, () => Math.random().toString(36).slice(2, 10)).join('');
}
