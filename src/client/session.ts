import type { Clock } from './clock.ts';
import type { TokenPair, User } from './contract.ts';
import { ApiError, NetworkError, SessionChangedError } from './errors.ts';
import type { Emitter, SignedOutReason } from './events.ts';
import { exclusively, replaceIn, writeTo } from './lock.ts';
import type { SessionStorage } from './storage.ts';
import type { Session } from './types.ts';

/** The codes of a refused refresh that mean that the session is over. Any other failure says nothing about it. */
const ENDINGS: Readonly<Record<string, SignedOutReason>> = {
  TOKEN_REVOKED: 'revoked',
  TOKEN_REUSED: 'reused',
  TOKEN_EXPIRED: 'expired',
  INVALID_TOKEN: 'invalid',
};

export interface SessionDeps {
  storage: SessionStorage;
  clock: Clock;
  emitter: Emitter;
  /** `POST /v1/auth/refresh` */
  refresh: (refreshToken: string) => Promise<TokenPair>;
  /** `POST /v1/auth/revoke` */
  revoke: (refreshToken: string) => Promise<unknown>;
  newId: () => string;
}

export type Sessions = ReturnType<typeof createSessions>;

/** The one session of a storage: read anew for each call, because other tabs and processes change it too. */
export function createSessions({ storage, clock, emitter, refresh, revoke, newId }: SessionDeps) {
  /** Counts this client's sign-outs: a sign-in that was under way then must not succeed. */
  let signOuts = 0;
  /** The session last reported to the app; `null` before the first read of the storage. */
  let known: string | undefined | null = null;
  let renewal: { of: string; result: Promise<Session> } | undefined;

  async function read(): Promise<{ raw: string; session: Session } | undefined> {
    const raw = await storage.read();
    const session = parse(raw);
    if (known !== null && known !== session?.id) {
      if (known !== undefined) emitter.emit('signedOut', { reason: 'elsewhere' });
      if (session !== undefined) emitter.emit('signedIn', {});
    }
    known = session?.id;
    return raw === null || session === undefined ? undefined : { raw, session };
  }

  // A read that fails here fails again in the next call, which reports it.
  storage.subscribe?.(() => void read().catch(() => undefined));

  const textOf = (pair: TokenPair, id: string) => {
    const { access_token, refresh_token, token_type, expires_in } = pair;
    const expires_at = clock.expiryOf(pair);
    const session: Session = { id, access_token, refresh_token, token_type, expires_in };
    return JSON.stringify(expires_at === undefined ? session : { ...session, expires_at });
  };

  /** Ends, on the server, a session that is not or no longer stored. Best effort: left alone, it expires. */
  const abandon = ({ refresh_token }: TokenPair) => void revoke(refresh_token).catch(() => undefined);

  /** Stores what replaces `raw`, unless that was signed out or replaced meanwhile. */
  async function succeed(raw: string, id: string, pair: TokenPair): Promise<Session> {
    const text = textOf(pair, id);
    if (await replaceIn(storage, raw, text)) return JSON.parse(text) as Session;
    const current = await read();
    // Another process has refreshed the same session.
    if (current?.session.id === id) return current.session;
    abandon(pair);
    throw new SessionChangedError();
  }

  async function renewStored(began: Session): Promise<Session> {
    const current = await read();
    if (current?.session.id !== began.id) throw new SessionChangedError();
    const { raw, session } = current;
    // Refreshed by another tab or process since.
    if (session.access_token !== began.access_token) return session;
    let pair: TokenPair;
    try {
      pair = await refresh(session.refresh_token);
    } catch (error) {
      const reason = error instanceof ApiError && error.status === 401 ? ENDINGS[error.code] : undefined;
      if (reason !== undefined && (await replaceIn(storage, raw, null))) {
        known = undefined;
        emitter.emit('signedOut', { reason });
      } else if (reason !== undefined) {
        const now = await read();
        if (now?.session.id === began.id) return now.session;
      }
      throw error;
    }
    const renewed = await succeed(raw, began.id, pair);
    emitter.emit('tokenRefreshed', {});
    return renewed;
  }

  const sessions = {
    async stored(): Promise<Session | undefined> {
      return (await read())?.session;
    },

    /** The session to send a request with, refreshed when it is about to expire. */
    async current(): Promise<Session | undefined> {
      const session = await sessions.stored();
      if (session === undefined || !clock.isExpiring(session)) return session;
      try {
        return await sessions.renew(session);
      } catch (error) {
        // The token may still be valid; if not, the request gets a 401.
        if (error instanceof NetworkError || (error instanceof ApiError && error.status !== 401)) return session;
        throw error;
      }
    },

    /**
     * The session after a refresh, which callers that come at once share.
     *
     * @throws {ApiError} a 401 when the session has ended; the app was notified before
     * @throws {NetworkError} the session may continue later
     */
    renew(began: Session): Promise<Session> {
      if (renewal?.of !== began.access_token) {
        const result = exclusively(storage, () => renewStored(began));
        const own = (renewal = { of: began.access_token, result });
        const forget = () => {
          if (renewal === own) renewal = undefined;
        };
        result.then(forget, forget);
      }
      return renewal.result;
    },

    /** @throws {SessionChangedError} when the storage holds another session, or none */
    async assertCurrent({ id }: Session): Promise<void> {
      if ((await read())?.session.id !== id) throw new SessionChangedError();
    },

    /** Signs in with what `signIn` returns. */
    begin<T extends TokenPair & { user: User }>(signIn: () => Promise<T>): Promise<T> {
      return exclusively(storage, async () => {
        const before = signOuts;
        const signedIn = await signIn();
        const id = newId();
        try {
          if (signOuts !== before) throw new SessionChangedError();
          const replaced = parse(await writeTo(storage, textOf(signedIn, id)));
          if (replaced !== undefined) {
            abandon(replaced);
            emitter.emit('signedOut', { reason: 'replaced' });
          }
        } catch (error) {
          abandon(signedIn);
          throw error;
        }
        known = id;
        emitter.emit('signedIn', { user: signedIn.user });
        return signedIn;
      });
    },

    /** Runs what ends the present tokens and returns new ones of the same session; no refresh runs meanwhile. */
    exchange(began: Session, work: (session: Session) => Promise<TokenPair>): Promise<Session> {
      return exclusively(storage, async () => {
        const current = await read();
        if (current?.session.id !== began.id) throw new SessionChangedError();
        return succeed(current.raw, began.id, await work(current.session));
      });
    },

    /** Forgets the session at once. @returns the session, so that the caller can end it on the server */
    async forget(reason: SignedOutReason): Promise<Session | undefined> {
      signOuts += 1;
      const session = parse(await writeTo(storage, null));
      known = undefined;
      if (session !== undefined) emitter.emit('signedOut', { reason });
      return session;
    },
  };
  return sessions;
}

/** `undefined` for text that this client has not written. */
function parse(raw: string | null): Session | undefined {
  if (raw === null) return undefined;
  try {
    const { id, access_token, refresh_token } = JSON.parse(raw) as Partial<Session>;
    const texts = [id, access_token, refresh_token];
    return texts.every((text) => typeof text === 'string') ? (JSON.parse(raw) as Session) : undefined;
  } catch {
    // Not JSON: nothing to sign anyone out of, and the next sign-in overwrites it.
    return undefined;
  }
}
