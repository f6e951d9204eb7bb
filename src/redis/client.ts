import { Redis } from '@upstash/redis/cloudflare';

import { RedisReplyError, RedisUnavailable } from './errors';
import type { RedisError } from './errors';
import { isTooLarge, replyError } from './replyError';

export type Argument = string | number;

/** A command as Redis takes it: `['SET', 'key', 'value', 'PX', 1000]`. */
export type Command = readonly [name: string, ...args: Argument[]];

/** A RESP2 reply as JSON: strings, integers, null, and arrays of these. */
export type RedisValue = string | number | null | RedisValue[];

/** One command's outcome. A pipeline is not atomic: a command's error leaves the others alone. */
export type Reply = { value: RedisValue; error?: never } | { error: RedisError; value?: never };

export interface RedisClientOptions {
  url: string;
  token: string;
}

export interface RedisClient {
  /**
   * Sends the commands as one pipeline: one HTTP request, executed in order.
   *
   * @throws {RedisUnavailable} when there is no usable response to the request as a whole
   */
  execute(commands: readonly Command[]): Promise<Reply[]>;
}

/**
 * Upstash's SDK, set up for this app: it neither retries (a lost reply may have been executed), nor guesses types, nor
 * splits what was issued together.
 */
class PipelineClient extends Redis {
  constructor({ url, token }: RedisClientOptions) {
    super({
      url,
      token,
      retry: { retries: 0 },
      automaticDeserialization: false,
      responseEncoding: false,
      enableAutoPipelining: false,
      enableTelemetry: false,
    });
  }

  /** What `pipeline().exec()` does, without its object of 200 closures. */
  post(commands: readonly Command[]): Promise<unknown> {
    return this.client.request({ path: ['pipeline'], body: commands });
  }
}

/** The one place that speaks to Redis. Holds no connection: one instance serves all requests of an isolate. */
export function createRedisClient(options: RedisClientOptions): RedisClient {
  const client = new PipelineClient(options);

  async function execute(commands: readonly Command[]): Promise<Reply[]> {
    let body: unknown;
    try {
      body = await client.post(commands);
    } catch (error) {
      const refusal = refusalOf(error);
      const isOfRedis = refusal instanceof RedisUnavailable && refusal.code !== undefined;
      if (isOfRedis || (commands.length === 1 && refusal instanceof RedisReplyError)) {
        return commands.map(() => ({ error: refusal }));
      }
      if (refusal instanceof RedisUnavailable) throw refusal;
      // One command of these is too large, or all together are. Nothing was executed: the parts go one after the other.
      const replies: Reply[] = [];
      for (const part of split(commands)) replies.push(...(await executeOrFail(part)));
      return replies;
    }
    return parseReplies(body, commands.length);
  }

  /** What was executed before a part that fails has its replies all the same. */
  async function executeOrFail(part: readonly Command[]): Promise<Reply[]> {
    try {
      return await execute(part);
    } catch (error) {
      if (!(error instanceof RedisUnavailable)) throw error;
      return part.map(() => ({ error }));
    }
  }

  return { execute };
}

/**
 * Why a request was refused as a whole. The SDK's messages begin with the server's text and go on with the whole command:
 * only the kind of failure leaves this function.
 *
 * @returns {RedisReplyError} when the request was too large, which says nothing about Redis; an error with a code when it
 * is what Redis says to each of its commands (the gateway tells that with status 503)
 */
function refusalOf(error: unknown): RedisError {
  const { name, message } = error instanceof Error ? error : { name: '', message: '' };
  if (name === 'UpstashJSONParseError') {
    // A proxy's own page. 413 is "Content Too Large" (RFC 9110, section 15.5.14).
    const tooLarge = /<title>413 |<h1>413 /i.test(message);
    return tooLarge ? new RedisReplyError('ERR') : new RedisUnavailable('garbage');
  }
  if (name !== 'UpstashError') return new RedisUnavailable('refused');
  if (isTooLarge(message)) return new RedisReplyError('ERR');
  const said = replyError(message.split(', command was: ', 1)[0] ?? '');
  return said instanceof RedisUnavailable ? said : new RedisUnavailable('status');
}

/** What comes before the largest command, that command, and what comes after; in the order given, and none empty. */
function split(commands: readonly Command[]): (readonly Command[])[] {
  const sizes = commands.map((command) => command.reduce<number>((sum, part) => sum + String(part).length, 0));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const largest = sizes.indexOf(Math.max(...sizes));
  // Where no command stands out, they are too large together.
  const parts =
    (sizes[largest] ?? 0) * 2 > total
      ? [commands.slice(0, largest), commands.slice(largest, largest + 1), commands.slice(largest + 1)]
      : [commands.slice(0, commands.length / 2), commands.slice(commands.length / 2)];
  return parts.filter((part) => part.length > 0);
}

/** Checks every part: a proxy's response, or a truncated one, must not pass for Redis's. */
function parseReplies(body: unknown, expected: number): Reply[] {
  if (!Array.isArray(body) || body.length !== expected) throw new RedisUnavailable('garbage');
  return body.map((slot: unknown): Reply => {
    if (typeof slot !== 'object' || slot === null) throw new RedisUnavailable('garbage');
    if ('error' in slot && slot.error != null) {
      if (typeof slot.error !== 'string') throw new RedisUnavailable('garbage');
      return { error: replyError(slot.error) };
    }
    if (!('result' in slot) || !isRedisValue(slot.result)) throw new RedisUnavailable('garbage');
    return { value: slot.result };
  });
}

function isRedisValue(value: unknown): value is RedisValue {
  return (
    value === null ||
    typeof value === 'string' ||
    typeof value === 'number' ||
    (Array.isArray(value) && value.every(isRedisValue))
  );
}
