import type { Backend } from '../backend.ts';
import { Connection, type Endpoint } from '../connection.ts';
import type { Command, Outcome, Shape } from '../reply.ts';

/** What every backend may be told. */
export interface BackendOptions {
  /** The longest that Redis may leave a command unanswered, in milliseconds. */
  replyTimeoutMs?: number | undefined;
  onState?: ((connected: boolean, cause?: Error) => void) | undefined;
}

/** A single Redis server at a fixed address (`redis://`, `rediss://`, or the embedded engine). */
export class DirectBackend implements Backend {
  readonly description: string;
  readonly #connection: Connection;

  constructor(endpoint: Endpoint, description: string, { replyTimeoutMs, onState }: BackendOptions = {}) {
    this.description = description;
    this.#connection = new Connection({
      resolve: () => Promise.resolve(endpoint),
      ...(replyTimeoutMs !== undefined && { replyTimeoutMs }),
      ...(onState && { onState }),
    });
  }

  get connected(): boolean {
    return this.#connection.connected;
  }

  get firstAttempt(): Promise<void> {
    return this.#connection.firstAttempt;
  }

  run(commands: readonly Command[], shape: Shape): Promise<Outcome[]> {
    return this.#connection.run(commands, shape);
  }

  transaction(commands: readonly Command[], shape: Shape): Promise<Outcome[] | Error> {
    return this.#connection.transaction(commands, shape);
  }

  close(graceMs?: number): Promise<void> {
    return this.#connection.close(graceMs);
  }
}
