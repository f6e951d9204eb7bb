import { createHash, createHmac } from 'node:crypto';

import { canonicalIdentity } from '../util/identity';
import { BoundedMap } from '../util/boundedMap';
import { hashTagOf } from './slots';

/** The namespaces of the app itself. Calls accept any string. */
export const RedisNamespace = {
  AUTH: 'auth',
  CACHE: 'cache',
  LOCK: 'lock',
  RATELIMIT: 'ratelimit',
  SESSION: 'session',
  USER: 'user',
} as const;

export type RedisNamespace = (typeof RedisNamespace)[keyof typeof RedisNamespace];

/** TTL of a key whose writer gave none, in seconds. No key is written without a TTL. */
export const DEFAULT_TTL_SECONDS: Readonly<Record<string, number>> = {
  [RedisNamespace.AUTH]: 7 * 86_400,
  [RedisNamespace.CACHE]: 300,
  [RedisNamespace.RATELIMIT]: 900,
  [RedisNamespace.SESSION]: 7 * 86_400,
  [RedisNamespace.USER]: 600,
};

export const FALLBACK_TTL_SECONDS = 3_600;

/** The user of a session id: the part before its first dot. */
export function userOfSession(sessionId: string): string {
  const dot = sessionId.indexOf('.');
  return dot === -1 ? sessionId : sessionId.slice(0, dot);
}

/**
 * Hash tags in the middle of each sixteenth of a cluster's slots. A shard with at least a sixteenth of the slots has one of
 * them.
 */
const HEARTBEAT_TAGS = '18 5x dj 3r d2 pv uh iy ly h9 uv q6 9s 5f dt ha'.split(' ');

/**
 * Every key of the app. Keys used by one script share a hash tag (`{…}`), so they are in one slot of a cluster.
 *
 * @param secret HMAC key for identities; when it changes, their counters start again from zero
 * @param ipv6PrefixBits the part of an IPv6 address that distinguishes identities
 */
export function createKeys(prefix: string, secret: string, ipv6PrefixBits?: number) {
  /** Digests are remembered for as long as the isolate lives, because callers come back. */
  const digests = new BoundedMap<string, string>(2_000);

  /**
   * 128 bits of an HMAC over a normalized identity, for personal data in keys. Without the secret, such a digest cannot be
   * matched against a list of addresses.
   */
  function concealed(text: string): string {
    let made = digests.get(text);
    if (made === undefined) {
      const identity = canonicalIdentity(text, ipv6PrefixBits);
      made = createHmac('sha256', secret).update(identity).digest('base64url').slice(0, 22);
      digests.set(text, made);
    }
    return made;
  }

  return {
    /** String: written by a probe, to check whether the shard of another key accepts writes. */
    probe: (key: string) => `${prefix}:probe:{${hashTagOf(key)}}`,

    /** A key chosen by an app developer. */
    plain: (namespace: string, key: string) => `${prefix}:${namespace}:${key}`,

    /** Hash, one per user: epochs, denied sessions and denied tokens. */
    blacklist: (userId: string) => `${prefix}:auth:blacklist:{${userId}}`,

    /** Strings: the same heartbeat, spread over all shards. See `services/outbox/history.ts`. */
    heartbeats: HEARTBEAT_TAGS.map((tag) => `${prefix}:auth:heartbeat:{${tag}}`),

    /** Hash, one per session, in the slot of its user's blacklist. */
    session: (sessionId: string) => {
      const userId = userOfSession(sessionId);
      return `${prefix}:session:{${userId}}${sessionId.slice(userId.length)}`;
    },

    /** String, one per policy and identity. The identity is hashed, because it may be an address. */
    rateLimit: (policy: string, identity: string) => `${prefix}:ratelimit:${policy}:{${concealed(identity)}}`,

    /** Hash: the limits set by administrators, and their version. */
    limitOverrides: `${prefix}:ratelimit:{overrides}`,
    /** Digests for the database's own keys: of an account's e-mail address, and of a client's address. */
    account: (email: string) => concealed(`account:${email}`),
    origin: (address: string) => concealed(`address:${address}`),

    /** String: the holder and its fence. Hash: the last fence. String, one per holder: it has left. All in one slot. */
    lock: (name: string) => `${prefix}:lock:{${name}}`,
    lockFence: (name: string) => `${prefix}:lock:{${name}}:fence`,
    lockLeft: (name: string, holder: string) => `${prefix}:lock:{${name}}:left:${holder}`,

    /** String: the request that claimed an idempotency key, and whether it was executed. `name` is a hash already. */
    idempotency: (name: string) => `${prefix}:idempotency:{${name}}`,

    /** Hash, one per job: the progress of its run, and the fence of the lock holder that wrote it. */
    warming: (job: string) => `${prefix}:cache:warming:{${job}}`,

    /**
     * Hashes in one slot: the counts of all isolates, and time series in steps of 10 s and of a minute, several steps to a
     * key.
     */
    metrics: `${prefix}:metrics:{all}:totals`,
    metricsSteps: (stepMs: number, chunk: number) => `${prefix}:metrics:{all}:${stepMs / 1_000}s:${chunk}`,

    /** String: the cached user, in the slot of the user's tag version. */
    user: (userId: string) => `${prefix}:user:{${userId}}`,
    /** String: the tag version of all cached entries of a user. Its key ends with `nonce`, as in earlier releases. */
    userVersion: (userId: string) => `${prefix}:user:{${userId}}:nonce`,

    /** String: one cached query of a user's data, in the same slot. */
    userEntry: (namespace: string, userId: string, hash: string) => `${prefix}:user:{${userId}}:${namespace}:${hash}`,

    /** String: one cached query. */
    cacheEntry: (namespace: string, hash: string) => `${prefix}:cache:${namespace}:{${hash}}`,
    /** String: created once, and absent only after a flush (or after its TTL). */
    flushSentinel: `${prefix}:cache:{mark}`,
    namespaceVersion: (namespace: string) => `${prefix}:cache:${namespace}:nonce`,
    tagVersion: (tag: string) => `${prefix}:cache:tag:${createHash('sha256').update(tag).digest('base64url')}`,
  };
}

export type Keys = ReturnType<typeof createKeys>;
