import { place } from '../address.ts';
import type { Backend, BackendOptions, KillOutcome } from '../backend.ts';
import { CommandCatalog } from '../catalog.ts';
import type { Endpoint } from '../client.ts';
import { Connection, type ConnectionOptions } from '../connection.ts';
import { type Command, JSON_SHAPE, type Outcome, type Shape } from '../reply.ts';
import { DEFAULT_SCRIPT_TIMEOUT_MS, ScriptWatch } from '../scriptWatch.ts';
import { killEverywhere } from './kill.ts';

/** A backend of one connection: `redis://`, `rediss://`, the embedded engine, or the master that Sentinel names. */
export class DirectBackend implements Backend {
  readonly description: string;
  readonly catalog = new CommandCatalog(async (command) => (await this.connection.run([command], JSON_SHAPE))[0]!);
  protected readonly connection: Connection;
  readonly #resolve: () => Promise<Endpoint>;

  /** @param source where to connect, and how to check that it is the right server */
  constructor(
    source: Pick<ConnectionOptions, 'resolve' | 'verify'>,
    description: string,
    { replyTimeoutMs, scriptTimeoutMs = DEFAULT_SCRIPT_TIMEOUT_MS, onState, onEvent }: BackendOptions = {},
  ) {
    this.description = description;
    this.#resolve = source.resolve;
    this.connection = new Connection({
      ...source,
      ...(replyTimeoutMs !== undefined && { replyTimeoutMs }),
      scripts: new ScriptWatch(scriptTimeoutMs, (event) => onEvent?.(event)),
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

  async kill(kind: 'SCRIPT' | 'FUNCTION'): Promise<KillOutcome> {
    return killEverywhere(await this.masters(), kind);
  }

  close(graceMs?: number): Promise<void> {
    return this.connection.close(graceMs);
  }
}
