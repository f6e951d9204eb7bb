import type { ServerResponse } from 'node:http';
import { ErrorReply } from 'redis';
import type { Identity } from './auth.ts';
import type { Backend } from './backend.ts';
import { newClient, type RedisClient } from './client.ts';
import { BackendUnavailable, GatewayError } from './errors.ts';
import { type EventForm, messageEvent, patternEvent, confirmation } from './streamEvents.ts';

/** How often an idle stream sends a comment, so that proxies keep it open. */
const HEARTBEAT_MS = 15_000;
/** Bytes that may wait for a slow reader before its stream is ended: Redis does the same to slow subscribers. */
const MAX_BUFFERED_BYTES = 4 * 1024 * 1024;
/** A subscribed connection is asked for a PING this often, and given up when it stays silent three times as long. */
const PING_MS = 2000;

/** How many streams may be open, over all kinds of clients. */
export interface StreamLimit {
  open: number;
  readonly most: number;
}

/**
 * Subscriptions and monitors as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 *
 * All subscriptions share one connection to Redis. When it is lost, the streams END, so that each client connects again and
 * fetches what it has missed: on a stream that went on, it would miss messages without a sign of it.
 */
export class Streams {
  readonly #backend: Backend;
  readonly #limit: StreamLimit;
  readonly #open = new Map<ServerResponse, Identity>();
  /** Called when the shared connection is lost. */
  readonly #listeners = new Set<() => void>();
  #subscriber: Promise<RedisClient> | undefined;

  constructor(backend: Backend, limit: StreamLimit) {
    this.#backend = backend;
    this.#limit = limit;
  }

  /** Ends the streams whose token is no longer valid. */
  endInvalid(isValid: (identity: Identity) => boolean): void {
    for (const [response, identity] of this.#open) if (!isValid(identity)) response.end();
  }

  /**
   * Responds with `subscribe,<channel>,1`, then `message,<channel>,<payload>` for each message
   * (`psubscribe,…` and `pmessage,<pattern>,<channel>,<payload>` for patterns).
   * @throws {BackendUnavailable} before anything is sent, when Redis cannot be asked
   */
  async subscribe(
    response: ServerResponse,
    { pattern, name, form, identity }: { pattern: boolean; name: string; form: EventForm; identity: Identity },
  ): Promise<void> {
    const stream = this.#admit(response, identity);
    try {
      const client = await this.#connect();
      const lost = () => stream.end();
      this.#listeners.add(lost);
      stream.onEnd(() => this.#listeners.delete(lost));
      // What arrives before the subscription is confirmed is kept back until it is.
      let early: string[] | undefined = [];
      const listen = (payload: Buffer, channel: Buffer) => {
        const event = pattern
          ? patternEvent(name, channel.toString(), payload.toString(), form)
          : messageEvent(name, payload.toString(), form);
        if (early) early.push(event);
        else stream.push(event);
      };
      if (pattern) await client.pSubscribe(name, listen, true);
      else await client.subscribe(name, listen, true);
      stream.onEnd(() => {
        const done = pattern ? client.pUnsubscribe(name, listen, true) : client.unsubscribe(name, listen, true);
        done.catch(() => {}); // the connection is lost, and the subscription with it
      });
      stream.start();
      for (const event of [confirmation(pattern, name, form), ...early]) stream.push(event);
      early = undefined;
    } catch (error) {
      stream.end();
      throw asAnswered(error);
    }
  }

  /** Responds with `"OK"`, then with a line for every command that any of the servers runs. */
  async monitor(response: ServerResponse, identity: Identity): Promise<void> {
    const stream = this.#admit(response, identity);
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
      throw asAnswered(error);
    }
  }

  /** Ends every stream and the connection that they share. */
  async close(): Promise<void> {
    for (const listener of this.#listeners) listener();
    for (const response of this.#open.keys()) response.end();
    const subscriber = this.#subscriber;
    this.#subscriber = undefined;
    (await subscriber?.catch(() => undefined))?.destroy();
  }

  #admit(response: ServerResponse, identity: Identity): EventStream {
    if (this.#limit.open >= this.#limit.most) {
      throw new GatewayError(503, `ERR the gateway has ${this.#limit.open} open streams, its limit`);
    }
    const stream = new EventStream(response);
    this.#limit.open += 1;
    this.#open.set(response, identity);
    stream.onEnd(() => {
      this.#limit.open -= 1;
      this.#open.delete(response);
    });
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

/** One response that is written event by event. Before {@link start} nothing has been sent. */
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

/** The error as the client gets it: Redis's own refusal (NOPERM), or that Redis cannot be asked. */
function asAnswered(error: unknown): Error {
  if (error instanceof GatewayError || error instanceof BackendUnavailable || error instanceof ErrorReply) return error;
  return new BackendUnavailable('Redis is not available for subscriptions', { cause: error });
}
