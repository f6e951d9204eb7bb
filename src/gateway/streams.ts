import type { ServerResponse } from 'node:http';
import type { Backend } from './backend.ts';
import { newClient, type RedisClient } from './client.ts';
import { BackendUnavailable, GatewayError } from './errors.ts';

/** How often an idle stream sends a comment, so that proxies keep it open. */
const HEARTBEAT_MS = 15_000;
/** What may wait for a slow reader before its stream is ended: Redis does the same to slow subscribers. */
const MAX_BUFFERED_BYTES = 4 * 1024 * 1024;
/** A subscribed connection is asked for a PING this often, and given up when it stays silent three times as long. */
const PING_MS = 2000;

/**
 * Subscriptions and monitors as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 *
 * All subscriptions share one connection to Redis. When it is lost, the streams END: a client that went on reading
 * would miss messages without knowing; one that is told connects again and reads up.
 */
export class Streams {
  readonly #backend: Backend;
  readonly #maxStreams: number;
  readonly #open = new Set<ServerResponse>();
  /** Called when the shared connection is lost. */
  readonly #listeners = new Set<() => void>();
  #subscriber: Promise<RedisClient> | undefined;

  constructor(backend: Backend, maxStreams: number) {
    this.#backend = backend;
    this.#maxStreams = maxStreams;
  }

  /** Open streams. */
  get size(): number {
    return this.#open.size;
  }

  /**
   * Answers with `subscribe,<channel>,<n>` for each name, then `message,<channel>,<payload>` for each message
   * (`psubscribe,…` and `pmessage,<pattern>,<channel>,<payload>` for patterns).
   * @throws {BackendUnavailable} before anything is answered, when Redis cannot be asked
   */
  async subscribe(response: ServerResponse, pattern: boolean, names: readonly string[]): Promise<void> {
    const stream = this.#admit(response);
    try {
      const client = await this.#connect();
      const lost = () => stream.end();
      this.#listeners.add(lost);
      stream.onEnd(() => this.#listeners.delete(lost));
      // What arrives before all subscriptions are confirmed is kept back until they are.
      const early: string[] = [];
      const confirmed: string[] = [];
      let push = (data: string): void => {
        early.push(data);
      };
      for (const name of new Set(names)) {
        const listen = (payload: Buffer, channel: Buffer) =>
          push(
            pattern
              ? `pmessage,${name},${String(channel)},${String(payload)}`
              : `message,${name},${payload.toString()}`,
          );
        if (pattern) await client.pSubscribe(name, listen, true);
        else await client.subscribe(name, listen, true);
        stream.onEnd(() => {
          const done = pattern ? client.pUnsubscribe(name, listen, true) : client.unsubscribe(name, listen, true);
          done.catch(() => {}); // the connection is lost, and the subscription with it
        });
        confirmed.push(`${pattern ? 'psubscribe' : 'subscribe'},${name},${confirmed.length + 1}`);
      }
      stream.start();
      push = (data) => stream.push(data);
      for (const data of [...confirmed, ...early]) stream.push(data);
    } catch (error) {
      stream.end();
      throw error instanceof GatewayError ? error : unavailable(error);
    }
  }

  /** Answers with `"OK"`, then with a line for every command that any of the servers runs. */
  async monitor(response: ServerResponse): Promise<void> {
    const stream = this.#admit(response);
    try {
      let started = false;
      for (const endpoint of await this.#backend.masters()) {
        const client = newClient(endpoint);
        client.on('error', () => stream.end());
        stream.onEnd(() => client.destroy());
        await client.connect();
        await client.monitor((line) => {
          if (started) stream.push(line);
        });
      }
      stream.start();
      stream.push('"OK"');
      started = true;
    } catch (error) {
      stream.end();
      throw error instanceof GatewayError ? error : unavailable(error);
    }
  }

  /** Ends every stream and the connection that they share. */
  async close(): Promise<void> {
    for (const listener of this.#listeners) listener();
    for (const response of this.#open) response.end();
    const subscriber = this.#subscriber;
    this.#subscriber = undefined;
    (await subscriber?.catch(() => undefined))?.destroy();
  }

  #admit(response: ServerResponse): EventStream {
    if (this.#open.size >= this.#maxStreams) {
      throw new GatewayError(503, `ERR the gateway has ${this.#open.size} open streams, its limit`);
    }
    const stream = new EventStream(response);
    this.#open.add(response);
    stream.onEnd(() => this.#open.delete(response));
    return stream;
  }

  #connect(): Promise<RedisClient> {
    if (this.#subscriber) return this.#subscriber;
    const connecting = this.#backend.masters().then(async ([endpoint]) => {
      const client = newClient(endpoint!, { pingInterval: PING_MS, socketTimeout: 3 * PING_MS });
      client.on('error', () => {
        forget();
        client.destroy();
        for (const listener of this.#listeners) listener();
      });
      await client.connect();
      return client;
    });
    const forget = () => {
      if (this.#subscriber === connecting) this.#subscriber = undefined;
    };
    connecting.catch(forget);
    this.#subscriber = connecting;
    return connecting;
  }
}

/** One response that is written event by event. Before {@link start} nothing has been answered. */
class EventStream {
  readonly #response: ServerResponse;
  readonly #cleanups: (() => void)[] = [];
  #heartbeat: NodeJS.Timeout | undefined;
  #ended = false;

  constructor(response: ServerResponse) {
    this.#response = response;
    response.once('close', () => this.end());
  }

  /** Runs when the stream ends, for whatever reason; at once when it has. */
  onEnd(cleanup: () => void): void {
    if (this.#ended) cleanup();
    else this.#cleanups.push(cleanup);
  }

  start(): void {
    if (this.#ended) return;
    this.#response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    this.#response.flushHeaders();
    this.#heartbeat = setInterval(() => this.#response.write(': keep-alive\n\n'), HEARTBEAT_MS);
    this.#heartbeat.unref();
  }

  /** Sends one event; line breaks in it become further `data:` lines, as the format has it. */
  push(data: string): void {
    if (this.#ended) return;
    this.#response.write(`data: ${data.replaceAll(/\r\n|\r|\n/g, '\ndata: ')}\n\n`);
    if (this.#response.writableLength > MAX_BUFFERED_BYTES) {
      this.end();
      this.#response.destroy();
    }
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#heartbeat);
    if (this.#response.headersSent) this.#response.end();
    for (const cleanup of this.#cleanups.splice(0)) cleanup();
  }
}

function unavailable(error: unknown): BackendUnavailable {
  return error instanceof BackendUnavailable
    ? error
    : new BackendUnavailable('Redis is not available for subscriptions', { cause: error });
}
