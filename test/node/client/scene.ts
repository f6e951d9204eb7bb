import { createClient, memoryStorage } from '../../../src/client/index.ts';
import type { ClientEvents, GatehouseClient, SessionStorage } from '../../../src/client/index.ts';
import { newcomer } from '../../support/client.ts';
import { clientNetwork } from '../../support/clientNetwork.ts';
import type { ClientNetwork } from '../../support/clientNetwork.ts';
import { forge, newKey, signingKeys } from '../attacks/forge.ts';
import type { Claims, Key } from '../attacks/forge.ts';
import { startScene } from '../faults/scene.ts';
import type { Scene } from '../faults/scene.ts';

export const REFRESH = 'POST /v1/auth/refresh';
export const REVOKE = 'POST /v1/auth/revoke';
export const LOGIN = 'POST /v1/auth/login';
export const ME = 'GET /v1/users/me';

/** A server with a signing key that the test knows, and clients of it. */
export interface ClientScene extends AsyncDisposable {
  server: Scene;
  key: Key;
  device(options?: DeviceOptions): Device;
}

export interface DeviceOptions {
  storage?: SessionStorage;
}

/** An app on a device: its client, its network, its clocks. */
export interface Device {
  client: GatehouseClient;
  network: ClientNetwork;
  storage: SessionStorage;
  /** All events that the app has received, in order: `signedIn`, `tokenRefreshed`, `signedOut: reason`. */
  events: string[];
  /** What the client has waited for, in milliseconds. No time passes. */
  waits: number[];
  /** Lets time pass, as the monotonic clock sees it. */
  elapse: (ms: number) => void;
  /** Registers an account and is signed in. */
  register: () => Promise<Registered>;
}

export interface Registered {
  id: string;
  credentials: { email: string; password: string };
}

export async function startClientScene(settings: Record<string, string> = {}): Promise<ClientScene> {
  const key = newKey('client-1');
  const server = await startScene({ SIGNING_KEYS: signingKeys({ active: key }), ...settings });
  return {
    server,
    key,
    device({ storage = memoryStorage() } = {}) {
      const network = clientNetwork();
      const events: string[] = [];
      const waits: number[] = [];
      let nowMs = 5_000_000;
      const client = createClient({
        baseUrl: server.app.url,
        storage,
        fetch: network.fetch,
        monotonicNow: () => nowMs,
        async wait(ms) {
          waits.push(ms);
          nowMs += ms;
        },
      });
      const textOf: { [K in keyof ClientEvents]: (event: ClientEvents[K]) => string } = {
        signedIn: () => 'signedIn',
        tokenRefreshed: () => 'tokenRefreshed',
        signedOut: ({ reason }) => `signedOut: ${reason}`,
      };
      for (const name of Object.keys(textOf) as (keyof ClientEvents)[]) {
        client.on(name, (event) => events.push(textOf[name](event as never)));
      }
      return {
        client,
        network,
        storage,
        events,
        waits,
        elapse: (ms) => void (nowMs += ms),
        async register() {
          const account = newcomer();
          const { user } = await client.register(account);
          return { id: user.id, credentials: { email: account.email, password: account.password } };
        },
      };
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

export interface Tokens {
  access_token: string;
  refresh_token: string;
}

export async function storedTokens(storage: SessionStorage): Promise<Tokens | undefined> {
  const raw = await storage.read();
  return raw === null ? undefined : (JSON.parse(raw) as Tokens);
}

/** Puts other tokens in the place of those that a device holds. */
export async function plant(storage: SessionStorage, tokens: Partial<Tokens>): Promise<void> {
  await storage.write(JSON.stringify({ ...(await storedTokens(storage)), ...tokens }));
}

/** The device's access token as it is an hour after it was issued. */
export async function expireAccessToken(key: Key, storage: SessionStorage): Promise<void> {
  const { access_token = '' } = (await storedTokens(storage)) ?? {};
  const claims = JSON.parse(Buffer.from(access_token.split('.')[1] ?? '', 'base64url').toString()) as Claims;
  const issuedAt = Number(claims['iat']) - 3_600;
  await plant(storage, { access_token: forge(key, { ...claims, iat: issuedAt, exp: issuedAt + 900 }) });
}

/** How the server sees the sessions of a user. */
export async function liveSessions({ server }: ClientScene, userId: string): Promise<number> {
  const rows = await server.app.sql('SELECT id FROM sessions WHERE user_id = ? AND ended_at_ms IS NULL', userId);
  return rows.length;
}

/** The server's database cannot be reached until this is disposed of. */
export async function databaseAway({ server }: ClientScene): Promise<AsyncDisposable> {
  await server.app.database('away');
  return { [Symbol.asyncDispose]: () => server.app.database('here') };
}

/** What a promise was rejected with. */
export async function rejectionOf(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error('it was not rejected');
}
