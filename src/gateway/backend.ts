import type { CommandCatalog } from './catalog.ts';
import type { Endpoint } from './client.ts';
import type { Command, Outcome, Shape } from './reply.ts';

/** What the gateway puts commands to: one server, a Sentinel group, a cluster, or the embedded engine. */
export interface Backend {
  /** For people: `redis://127.0.0.1:6379`, `embedded Valkey 9.1.1`. Holds no password. */
  readonly description: string;
  /** Whether commands are accepted at present. */
  readonly connected: boolean;
  /** Resolves once the first attempt to connect has succeeded or failed. Never rejects. */
  readonly firstAttempt: Promise<void>;
  /**
   * Runs commands in their order, without atomicity; each has its own outcome, {@link BackendUnavailable} included.
   * A command is sent at most once, except where Redis itself replied that it did not run it (MOVED, ASK).
   * Never rejects.
   */
  run(commands: readonly Command[], shape: Shape): Promise<Outcome[]>;
  /** Runs commands as one MULTI/EXEC; a single error when the whole was discarded. Never rejects. */
  transaction(commands: readonly Command[], shape: Shape): Promise<Outcome[] | Error>;
  /** The commands that the servers know. */
  readonly catalog: CommandCatalog;
  /** Ends the scripts or the functions that the servers are running. Rejects while there is no server to ask. */
  kill(kind: 'SCRIPT' | 'FUNCTION'): Promise<KillOutcome>;
  /** The servers that hold the data at present, for subscriptions and MONITOR. Rejects while there is none. */
  masters(): Promise<Endpoint[]>;
  /** Refuses new commands, waits `graceMs` at most for the replies that are due, and closes every connection. */
  close(graceMs?: number): Promise<void>;
}

/** What became of SCRIPT KILL on all servers: how many scripts it ended, and what the others said. */
export interface KillOutcome {
  killed: number;
  error?: Error;
}

/** Something that the gateway did by itself, for the log. */
export type BackendEvent =
  | { event: 'script_killed'; redis: string; kind: 'SCRIPT' | 'FUNCTION'; afterMs: number }
  | { event: 'script_not_killed'; redis: string; reason: string; afterMs: number };

/** What every backend may be told. */
export interface BackendOptions {
  /** The longest that Redis may leave a command unanswered, in milliseconds. @default 5000 */
  replyTimeoutMs?: number | undefined;
  /** Of a cluster: commands that may wait for one shard, so that it leaves room to the others. @default any number */
  maxPendingPerShard?: number | undefined;
  /** Scripts and functions that hold a server up for so long are killed, in milliseconds; 0: never. @default 5000 */
  scriptTimeoutMs?: number | undefined;
  onEvent?: ((event: BackendEvent) => void) | undefined;
  /** Called with every change of a connection. `cause` is why it was lost. */
  onState?: ((connected: boolean, server: string, cause?: Error) => void) | undefined;
}
