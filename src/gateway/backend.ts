import type { CommandCatalog } from './catalog.ts';
import type { Endpoint } from './client.ts';
import type { Command, Outcome, Shape } from './reply.ts';

/** The Redis behind the gateway: one server, a Sentinel group, a cluster, or the embedded engine. */
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
  /** Runs commands as one MULTI/EXEC; a single error if Redis discarded the transaction. Never rejects. */
  transaction(commands: readonly Command[], shape: Shape): Promise<Outcome[] | Error>;
  /** The commands that the servers support. */
  readonly catalog: CommandCatalog;
  /** Kills the scripts or the functions that the servers are running. Rejects while no server is reachable. */
  kill(kind: 'SCRIPT' | 'FUNCTION'): Promise<KillOutcome>;
  /** The servers that currently hold the data, for subscriptions and MONITOR. Rejects while there is none. */
  masters(): Promise<Endpoint[]>;
  /** Refuses new commands, waits at most `graceMs` for outstanding replies, and closes every connection. */
  close(graceMs?: number): Promise<void>;
}

/** The outcome of SCRIPT KILL on all servers: how many scripts it killed, and the error of the other servers. */
export interface KillOutcome {
  killed: number;
  error?: Error;
}

/** An action of the gateway itself, for the log. */
export type BackendEvent =
  | { event: 'script_killed'; redis: string; kind: 'SCRIPT' | 'FUNCTION'; afterMs: number }
  | { event: 'script_not_killed'; redis: string; reason: string; afterMs: number };

/** Options of every backend. */
export interface BackendOptions {
  /** The longest that Redis may leave a command unanswered, in milliseconds. @default 5000 */
  replyTimeoutMs?: number | undefined;
  /** Of a cluster: commands that may wait for one shard, so that it leaves room for the others. @default any number */
  maxPendingPerShard?: number | undefined;
  /** Scripts and functions that block a server for this long are killed, in milliseconds; 0: never. @default 5000 */
  scriptTimeoutMs?: number | undefined;
  onEvent?: ((event: BackendEvent) => void) | undefined;
  /** Called on every change of a connection. `cause`: why it was lost. */
  onState?: ((connected: boolean, server: string, cause?: Error) => void) | undefined;
}
