import type { DatabaseMode } from './database.ts';
import type { NetworkMode } from './network.ts';
import type { LockWish } from './own.ts';
import type { Refusal, ServerState } from './redis.ts';

export const ISOLATES = 3;
export const ACCOUNTS = 3;

/** How a client's request is lost: before it arrives, or its response on the way back. */
export type Loss = 'request' | 'response';

interface Timed {
  /** Milliseconds after the beginning. */
  at: number;
}

export interface ByClient extends Timed {
  isolate: number;
  /** Whose, counted over those that there are at that time. */
  account: number;
  device: number;
  lose?: Loss;
}

/** What a signed-in device does. */
export type DeviceAction =
  | 'read'
  /** On a route without a limit, whose guard decides from memory for all of `withinMs`. */
  | 'read-unlimited'
  /** Several reads at once. */
  | 'burst'
  | 'refresh'
  | 'rename'
  | 'devices'
  | 'logout'
  | 'logout-all'
  | 'end-device'
  | 'password'
  | 'delete'
  | 'revoke-access'
  | 'revoke-refresh'
  /** A thief copies its refresh token and uses it. */
  | 'steal'
  /** With an idempotency key, and another one between two tries. */
  | 'rename-once';

/** What the administrator does: reads the list or an account, changes an account, ends its sessions, or overrides a limit. */
export type AdminAction = 'list' | 'inspect' | 'role' | 'disable' | 'enable' | 'end-sessions' | 'override';

export type OtherAction =
  | 'login'
  /** A thief shows a copied token of a session that may have ended. */
  | 'thief-access'
  | 'thief-refresh'
  /** The same with an access token of the session that has ended last. */
  | 'thief-latest'
  /** The same on a route without a limit. */
  | 'thief-unlimited'
  /** The same with a refresh token of before a change of the password. */
  | 'thief-retired'
  /** Guesses of a password, one after the other. */
  | 'guess'
  /** A login with an idempotency key, repeated. */
  | 'login-once'
  /** Calls of a route with a small limit. */
  | 'busy'
  /** Works under a lock. */
  | 'lock'
  /** The app's own code reads an account's name through the cache, or asks whether a session lives. */
  | 'own-name'
  | 'own-session'
  /** A new password by mail, with a token that is shown more than once. */
  | 'recover';

/** Something that a client does. */
export interface ClientStep extends ByClient {
  do: DeviceAction | AdminAction | OtherAction;
  /** How many reads, guesses or calls. */
  count?: number;
  lock?: LockWish;
  /** Of an override. */
  maxRequests?: number;
}

/** Something that goes wrong. */
export type Fault = Timed &
  (
    | { do: 'network'; mode: NetworkMode; forMs: number; only?: number }
    | { do: 'state'; state: ServerState; forMs: number }
    | { do: 'refusal'; kind: Refusal; name: string; part: string; forMs: number }
    | { do: 'shard'; shard: number; forMs: number }
    | { do: 'flush'; shard?: number }
    | { do: 'save'; label: string }
    | { do: 'restore'; label: string; shard?: number }
    | { do: 'database'; mode: DatabaseMode; forMs: number; only?: number }
    | { do: 'database-fails'; count: number }
    | { do: 'database-conflicts'; forMs: number }
    | { do: 'database-saves'; label: string }
    | { do: 'database-restores'; label: string }
    | { do: 'cron'; isolate: number }
    | { do: 'kill'; isolate: number }
    | { do: 'clock'; isolate: number; byMs: number }
  );

export type Step = ClientStep | Fault;

/** Everything that a run does, as data: a step can be taken out, and the rest stays as it is. */
export interface Plan {
  seed: number;
  clocks: { offsetMs: number; driftPpm: number }[];
  /** Whether D1 reads from replicas where it may. */
  replicas?: boolean;
  /** `READS_WITHIN_MS`: how old what Redis said may be by which the app's own reads are decided. Left out: each asks. */
  withinMs?: number;
  /** Whether mails are sent. */
  mail?: boolean;
  /** After the last step faults end, and what was acknowledged must come into force. */
  lengthMs: number;
  steps: Step[];
}
