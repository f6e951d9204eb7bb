import { Redis } from '@upstash/redis/cloudflare';

import { RedisReplyError, RedisUnavailable } from './errors';
import type { RedisError } from './errors';
import { isTooLarge, replyError } from './replyError';

export type Argument = string | number;

/** A command and its arguments: `['SET', 'key', 'value', 'PX', 1000]`. */
export type Command = readonly [name: string, ...args: Argument[]];

/** A RESP2 reply as JSON: strings, integers, null, and arrays of these. */
export type RedisValue = string | number | null | RedisValue[];

/** The outcome of one command. A pipeline is not atomic: an error of one command does not affect the others. */
export type Reply = { value: RedisValue; error?: never } | { error: RedisError; value?: never };

export interface RedisClientOptions {
  url: string;
  token: string;
}

export interface RedisClient {
  /**
   * Sends the commands as one pipeline: one HTTP request, executed in order.
   *
   * @throws {RedisUnavailable} when the request as a whole has no usable response
   */
  execute(commands: readonly Command[]): Promise<Reply[]>;
}

/**
 * Upstash's SDK, configured for this app: no retries (a command may have run although its reply was lost), no guessing of
 * types, and no splitting of commands that were issued together.
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

  /** Does the same as `pipeline().exec()`, without its object of 200 closures. */
  post(commands: readonly Command[]): Promise<unknown> {
    return this.client.request({ path: ['pipeline'], body: commands });
  }
}

/** The only code that calls Redis. It holds no connection: one instance serves all requests of an isolate. */
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
      // One command is too large, or all of them together. None was executed, so send them in parts, one after the other.
      const replies: Reply[] = [];
      for (const part of split(commands)) replies.push(...(await executeOrFail(part)));
      return replies;
    }
    return parseReplies(body, commands.length);
  }

  /** Turns an outage into error replies, so that the replies of earlier parts are kept. */
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
 * Classifies the refusal of a whole request. The SDK's messages contain the server's text and the whole command, so only
 * the kind of the failure is kept.
 *
 * @returns {RedisReplyError} when the request was too large, which says nothing about Redis's health; an error with a code
 *   when Redis would refuse each of the commands with it (the gateway then responds with status 503)
 */
function refusalOf(error: unknown): RedisError {
  const { name, message } = error instanceof Error ? error : { name: '', message: '' };
  if (name === 'UpstashJSONParseError') {
    // An error page of a proxy. 413 is "Content Too Large" (RFC 9110, section 15.5.14).
    const tooLarge = /<title>413 |<h1>413 /i.test(message);
    return tooLarge ? new RedisReplyError('ERR') : new RedisUnavailable('garbage');
  }
  if (name !== 'UpstashError') return new RedisUnavailable('refused');
  if (isTooLarge(message)) return new RedisReplyError('ERR');
  const said = replyError(message.split(', command was: ', 1)[0] ?? '');
  return said instanceof RedisUnavailable ? said : new RedisUnavailable('status');
}

/** Splits before and after the largest command, and keeps the order. No part is empty. */
function split(commands: readonly Command[]): (readonly Command[])[] {
  const sizes = commands.map((command) => command.reduce<number>((sum, part) => sum + String(part).length, 0));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const largest = sizes.indexOf(Math.max(...sizes));
  // If no command is larger than all others together, split in the middle.
  const parts =
    (sizes[largest] ?? 0) * 2 > total
      ? [commands.slice(0, largest), commands.slice(largest, largest + 1), commands.slice(largest + 1)]
      : [commands.slice(0, commands.length / 2), commands.slice(commands.length / 2)];
  return parts.filter((part) => part.length > 0);
}

/** Checks every part: a proxy's response, or a truncated one, must not be taken for Redis's. */
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
