import { ErrorReply } from 'redis';
import { describe, type Endpoint, newClient, type RedisClient } from './client.ts';
import { isScript, nameOf } from './commands.ts';
import { BackendUnavailable } from './errors.ts';
import { type Command, JSON_SHAPE, type Outcome, type Reply, type Shape } from './reply.ts';
import { Pending } from './pending.ts';
import type { ScriptWatch } from './scriptWatch.ts';

export interface ConnectionOptions {
  /** Asked before every attempt, so that an address may change (Sentinel). Rejects when there is none at present. */
  resolve: () => Promise<Endpoint>;
  /** Checks a fresh client before it serves commands; rejects to have it thrown away (wrong role, still loading). */
  verify?: (client: RedisClient) => Promise<void>;
  /** The longest that Redis may leave a command unanswered before the connection counts as dead. @default 5000 */
  replyTimeoutMs?: number;
  /** @default 2000 */
  connectTimeoutMs?: number;
  /** Commands that may wait for this server's replies; more are refused at once. @default any number */
  maxPending?: number | undefined;
  /** Notified of scripts that block the server. */
  scripts?: ScriptWatch | undefined;
  /** Called on every change between connected and not connected. `cause`: why the connection was lost. */
  onState?: (connected: boolean, endpoint: Endpoint, cause?: Error) => void;
}

/** The first wait between two attempts, and the longest, in milliseconds. */
const BACKOFF_MS = { first: 50, longest: 2000 } as const;

/** How much longer than the reply timeout a connection is kept while the script that stalls it is being killed. */
const KILL_GRACE_MS = 2000;
/**
 * One connection to one Redis server, kept up for ever: it connects in the background, with a growing and jittered
 * wait between attempts, and refuses commands at once while there is no connection.
 *
 * All requests share it. RESP has no request ids: replies come in the order of the commands, and node-redis matches
 * them in that order. A transaction is written in one turn of the event loop, so nothing can come between its
 * commands, and needs no connection of its own.
 */
export class Connection {
  readonly #options: ConnectionOptions;
  readonly #replyTimeoutMs: number;
  #client: RedisClient | undefined;
  #endpoint: Endpoint | undefined;
  #unavailable: BackendUnavailable | ErrorReply = new BackendUnavailable('Redis is not connected yet');
  readonly #pending: Pending;
  /** Settled once it is known that the user may run MULTI, without which a transaction would run as single commands. */
  #multi: Promise<Outcome> | undefined;
  #watchdog: NodeJS.Timeout;
  #closed = false;
  #wake: (() => void) | undefined;
  readonly #firstAttempt = Promise.withResolvers<void>();

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#replyTimeoutMs = options.replyTimeoutMs ?? 5000;
    this.#pending = new Pending(options.maxPending ?? Infinity);
    this.#watchdog = setInterval(() => this.#dropWhenStalled(), Math.min(100, Math.max(20, this.#replyTimeoutMs / 8)));
    this.#watchdog.unref();
    void this.#keepConnected();
  }

  get connected(): boolean {
    return this.#client !== undefined;
  }

  /** The server that it is connected to, or was last. */
  get endpoint(): Endpoint | undefined {
    return this.#endpoint;
  }

  /** Resolves once the first attempt to connect has succeeded or failed. */
  get firstAttempt(): Promise<void> {
    return this.#firstAttempt.promise;
  }

  /** Commands written whose replies are not in yet. */
  get pending(): number {
    return this.#pending.count;
  }

  /** Sends each command once, all in this turn, and resolves when every one has its outcome. Never rejects. */
  run(commands: readonly Command[], shape: Shape, chainId?: symbol): Promise<Outcome[]> {
    const client = this.#client;
    if (!client) return Promise.resolve(commands.map(() => this.#unavailable));
    if (commands.length === 0) return Promise.resolve([]);
    if (!this.#pending.hasRoom(commands.length)) {
      const waiting = this.#pending.count;
      const refusal = new BackendUnavailable(`Redis is not available: ${waiting} commands wait for its replies`);
      return Promise.resolve(commands.map(() => refusal));
    }
    let scripts = 0;
    for (const command of commands) if (isScript(nameOf(command))) scripts++;
    this.#pending.add(commands.length, scripts);
    const options = chainId ? { typeMapping: shape, chainId } : { typeMapping: shape };
    return new Promise((resolve) => {
      const outcomes: Outcome[] = [];
      let left = commands.length;
      const settle = (index: number, outcome: Outcome) => {
        outcomes[index] = outcome;
        this.#pending.settle();
        if (--left > 0) return;
        this.#pending.settleScripts(scripts);
        resolve(outcomes);
      };
      for (let index = 0; index < commands.length; index++) {
        client.sendCommand<Reply>(commands[index]!, options).then(
          (reply) => settle(index, reply),
          (error: unknown) => settle(index, error instanceof ErrorReply ? error : lost(error)),
        );
      }
    });
  }

  /**
   * Runs MULTI, the commands, EXEC (`asking`: for a slot that is being moved to this server). Resolves to one outcome a
   * command, or to a single error when Redis discarded the whole (`EXECABORT …`) or could not be asked.
   */
  async transaction(commands: readonly Command[], shape: Shape, asking = false): Promise<Outcome[] | Error> {
    const denied = await this.#multiDenied();
    if (denied) return denied;
    const before: Command[] = asking ? [['ASKING'], ['MULTI']] : [['MULTI']];
    // The chain makes node-redis drop the rest of a transaction when the socket dies half way through writing it.
    const outcomes = await this.run([...before, ...commands, ['EXEC']], shape, Symbol('transaction'));
    const exec = outcomes.at(-1);
    // EXEC's own error says only "because of previous errors": MOVED, ASK and the like stand in the first of these.
    if (exec instanceof Error) return redirect(outcomes) ?? exec;
    return exec as Outcome[];
  }

  /** Drops the current connection for a reason that the caller knows, and reconnects. */
  drop(cause: Error): void {
    if (this.#client) this.#lose(this.#client, cause);
  }

  /** Refuses new commands, waits at most `graceMs` for outstanding replies, and closes. */
  async close(graceMs = 5000): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#wake?.();
    const client = this.#client;
    this.#client = undefined;
    this.#unavailable = new BackendUnavailable('the gateway is shutting down');
    const deadline = performance.now() + graceMs;
    while (this.#pending.count > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    clearInterval(this.#watchdog);
    client?.destroy();
  }

  async #keepConnected(): Promise<void> {
    for (let attempt = 0; !this.#closed; attempt++) {
      try {
        const client = await this.#connectOnce();
        this.#multi = undefined;
        attempt = -1;
        this.#firstAttempt.resolve();
        await new Promise<void>((resolve) => client.once('gone', resolve));
      } catch (error) {
        // A script that runs too long: Redis says so itself, and what can be done about it.
        const isBusy = error instanceof ErrorReply && error.message.startsWith('BUSY ');
        this.#unavailable = isBusy
          ? error
          : new BackendUnavailable(`Redis is not available: ${describe(error)}`, { cause: error });
        this.#firstAttempt.resolve();
      }
      if (this.#closed) return;
      const wait = Math.min(BACKOFF_MS.first * 2 ** Math.max(0, attempt), BACKOFF_MS.longest);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, wait * (0.5 + Math.random() / 2)).unref();
      });
    }
  }

  async #connectOnce(): Promise<RedisClient> {
    const connectTimeoutMs = this.#options.connectTimeoutMs ?? 2000;
    const endpoint = await this.#options.resolve();
    const client = newClient(endpoint, { connectTimeoutMs });
    let failure: Error | undefined;
    // Any error ends this client: after a broken reply, for one, it could no longer match replies with commands.
    client.on('error', (error: Error) => {
      failure ??= error;
      this.#lose(client, error);
    });
    // A server that accepts the connection and then says nothing must not hold up the next attempt.
    const timer = setTimeout(() => client.destroy(), connectTimeoutMs);
    try {
      await client.connect();
      await client.sendCommand(['PING']);
      await this.#options.verify?.(client);
      if (failure) throw failure;
      if (this.#closed || !client.isReady) throw new BackendUnavailable('the connection was closed');
    } catch (error) {
      client.destroy();
      throw failure ?? error;
    } finally {
      clearTimeout(timer);
    }
    this.#client = client;
    this.#endpoint = endpoint;
    this.#options.onState?.(true, endpoint);
    return client;
  }

  #lose(client: RedisClient, cause: Error): void {
    if (this.#client === client) {
      this.#client = undefined;
      this.#unavailable = new BackendUnavailable(`Redis is not available: ${describe(cause)}`, { cause });
      this.#options.onState?.(false, this.#endpoint!, cause);
    }
    client.destroy();
    client.emit('gone');
  }

  /** Whether this connection may not run MULTI. Asked once, with a transaction of nothing. */
  async #multiDenied(): Promise<Error | undefined> {
    if (!this.#client) return this.#unavailable;
    this.#multi ??= this.run([['MULTI'], ['EXEC']], JSON_SHAPE).then(([multi]) => multi!);
    const outcome = await this.#multi;
    if (!(outcome instanceof Error)) return undefined;
    this.#multi = undefined; // the right may be given later, or Redis come back
    return outcome;
  }

  #dropWhenStalled(): void {
    this.#pending.look();
    const { silentMs, hasScripts } = this.#pending;
    if (silentMs === 0) return;
    const { scripts } = this.#options;
    if (hasScripts && this.#endpoint) scripts?.check(this.#endpoint, silentMs);
    if (silentMs < this.#replyTimeoutMs + (scripts?.busy ? KILL_GRACE_MS : 0)) return;
    if (hasScripts && this.#endpoint) scripts?.abandoned(this.#endpoint, silentMs);
    this.drop(new BackendUnavailable(`no reply within ${this.#replyTimeoutMs} ms`));
  }
}

function lost(error: unknown): BackendUnavailable {
  return new BackendUnavailable(`the connection to Redis was lost before its reply, the command may have run`, {
    sent: true,
    cause: error,
  });
}

function redirect(outcomes: readonly Outcome[]): Error | undefined {
  return outcomes.find(
    (o): o is Error => o instanceof Error && /^(?:MOVED|ASK|TRYAGAIN|CLUSTERDOWN|BUSY) /.test(o.message),
  );
}
