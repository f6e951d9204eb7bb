import { Redis } from '@upstash/redis/cloudflare';

import { RedisUnavailable, replyError } from './errors';
import type { RedisError } from './errors';

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
   * @throws {RedisUnavailable} when there is no usable answer to the request as a whole
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
  return {
    async execute(commands) {
      let body: unknown;
      try {
        body = await client.post(commands);
      } catch (error) {
        // The SDK's messages quote the whole command; only the kind of failure goes on.
        throw new RedisUnavailable(kindOf(error));
      }
      return parseReplies(body, commands.length);
    },
  };
}

function kindOf(error: unknown): 'garbage' | 'status' | 'refused' {
  const name = error instanceof Error ? error.name : '';
  if (name === 'UpstashJSONParseError') return 'garbage';
  if (name === 'UpstashError') return 'status';
  return 'refused';
}

/** Trusts nothing: a proxy's answer or a truncated one must not pass for Redis's. */
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
