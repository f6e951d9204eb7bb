import type { Credentials, Operations, PasswordChange, Registration, SignedIn, TokenPair } from './contract.ts';
import type { ClientEvents, Listener } from './events.ts';
import type { SessionStorage } from './storage.ts';

export interface ClientOptions {
  /** Where the API is, such as `https://api.example.com`. */
  baseUrl: string;
  /** Where the session is kept: `webStorage()`, `asyncStorage(…)`, `memoryStorage()`, or your own. */
  storage: SessionStorage;
  /** @default the platform's */
  fetch?: typeof fetch;
  /** One attempt's time, in milliseconds. @default 15_000 */
  timeoutMs?: number;
  /** How long a call may go on waiting (`Retry-After`, back-off) and trying again, in milliseconds. @default 10_000 */
  retryBudgetMs?: number;
  /** Milliseconds of a clock that nothing sets back. @default performance.now */
  monotonicNow?: () => number;
  /** @default setTimeout */
  wait?: (ms: number, signal?: AbortSignal) => Promise<void>;
}

/** The stored form: the tokens of one response, together. */
export interface Session extends TokenPair {
  /** Made by the client at sign-in, and kept by all its refreshes: distinguishes one sign-in from the next. */
  id: string;
  /** By the server's time, in milliseconds; absent where that is not known. */
  expires_at?: number;
}

export interface SendOptions {
  signal?: AbortSignal;
  /** For operations that accept one, instead of a random one: to repeat a write after a restart of the app. */
  idempotencyKey?: string;
}

/** The arguments and options of an operation. */
export type CallOptions<O extends keyof Operations> = Omit<Operations[O], 'result'> & SendOptions;
// oxlint-disable-next-line typescript/no-empty-object-type -- asks whether every member is optional
type CallArguments<O extends keyof Operations> = {} extends CallOptions<O> ? [CallOptions<O>?] : [CallOptions<O>];

/** Signs in, keeps signed in, and calls the API. */
export interface GatehouseClient {
  register(registration: Registration, options?: SendOptions): Promise<SignedIn>;
  login(credentials: Credentials, options?: SendOptions): Promise<SignedIn>;
  /**
   * Ends the session. The device forgets it at once and in any case, also while a refresh is under way.
   *
   * @returns whether the server has confirmed; when it could not be reached, the session expires there by itself
   */
  signOut(): Promise<{ confirmed: boolean }>;
  /** Ends all sessions of the user. @throws {NetworkError} and nothing has changed here */
  signOutEverywhere(options?: SendOptions): Promise<void>;
  /** Ends all other sessions; this one continues. */
  changePassword(change: PasswordChange, options?: SendOptions): Promise<void>;
  /**
   * Proves the password again, for operations that are refused with `REAUTHENTICATION_REQUIRED`. This session continues.
   *
   * @throws {ApiError} `PASSWORD_INCORRECT`
   */
  reauthenticate(password: string, options?: SendOptions): Promise<void>;
  /** @throws {ApiError} `REAUTHENTICATION_REQUIRED`: ask for the password, {@link reauthenticate}, and try again */
  deleteAccount(options?: SendOptions): Promise<void>;
  isSignedIn(): Promise<boolean>;
  /** An access token that is good now, for what is not sent through this client; `undefined` when signed out. */
  accessToken(): Promise<string | undefined>;
  /**
   * Any operation of the contract, as `'METHOD /path'`.
   *
   * @example
   * const user = await client.call('PATCH /v1/users/me', { body: { name: 'Grace' } });
   * @throws {ApiError} an error response
   * @throws {NetworkError} no usable response
   * @throws {SessionChangedError} the user signed out, or another signed in, before the response arrived
   */
  call<O extends keyof Operations>(operation: O, ...options: CallArguments<O>): Promise<Operations[O]['result']>;
  /**
   * `fetch` with the session's token, its refresh and retries, for paths of `baseUrl`; returns error responses too. A POST or
   * PATCH is retried when you give it an `Idempotency-Key`.
   */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** @returns what removes the listener */
  on<K extends keyof ClientEvents>(event: K, listener: Listener<K>): () => void;
}
