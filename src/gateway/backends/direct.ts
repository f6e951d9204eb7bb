import { place } from '../address.ts';
import type { Backend, BackendOptions } from '../backend.ts';
import type { Endpoint } from '../client.ts';
import { Connection, type ConnectionOptions } from '../connection.ts';
import type { Command, Outcome, Shape } from '../reply.ts';

/** A backend of one connection: `redis://`, `rediss://`, the embedded engine, or the master that Sentinel names. */
export class DirectBackend implements Backend {
  readonly description: string;
  protected readonly connection: Connection;
  readonly #resolve: () => Promise<Endpoint>;

  /** @param source where to connect, and how to tell that it is the right server */
  constructor(
    source: Pick<ConnectionOptions, 'resolve' | 'verify'>,
    description: string,
    { replyTimeoutMs, onState }: BackendOptions = {},
  ) {
    this.description = description;
    this.#resolve = source.resolve;
    this.connection = new Connection({
      ...source,
      ...(replyTimeoutMs !== undefined && { replyTimeoutMs }),
      onState: (connected, endpoint, cause) => onState?.(connected, place(endpoint), cause),
    });
  }

  get connected(): boolean {
    return this.connection.connected;
  }

  get firstAttempt(): Promise<void> {
    return this.connection.firstAttempt;
  }

  run(commands: readonly Command[], shape: Shape): Promise<Outcome[]> {
    return this.connection.run(commands, shape);
  }

  transaction(commands: readonly Command[], shape: Shape): Promise<Outcome[] | Error> {
    return this.connection.transaction(commands, shape);
  }

  async masters(): Promise<Endpoint[]> {
    return [this.connected && this.connection.endpoint ? this.connection.endpoint : await this.#resolve()];
  }

  close(graceMs?: number): Promise<void> {
    return this.connection.close(graceMs);
  }
}
