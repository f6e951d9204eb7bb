import { createHash, createHmac } from 'node:crypto';

import { canonicalIdentity } from '../util/identity';
import { BoundedMap } from '../util/boundedMap';
import { hashTagOf } from './slots';

/** The app's namespaces. Calls accept any string; these are the ones that it uses itself. */
export const RedisNamespace = {
  AUTH: 'auth',
  CACHE: 'cache',
  LOCK: 'lock',
  RATELIMIT: 'ratelimit',
  SESSION: 'session',
  USER: 'user',
} as const;

export type RedisNamespace = (typeof RedisNamespace)[keyof typeof RedisNamespace];

/** TTL of a key whose writer gave none, in seconds. Nothing is written without one. */
export const DEFAULT_TTL_SECONDS: Readonly<Record<string, number>> = {
  [RedisNamespace.AUTH]: 7 * 86_400,
  [RedisNamespace.CACHE]: 300,
  [RedisNamespace.RATELIMIT]: 900,
  [RedisNamespace.SESSION]: 7 * 86_400,
  [RedisNamespace.USER]: 600,
};

export const FALLBACK_TTL_SECONDS = 3_600;

/** The user that a session id belongs to: what stands before its first dot. */
export function userOfSession(sessionId: string): string {
  const dot = sessionId.indexOf('.');
  return dot === -1 ? sessionId : sessionId.slice(0, dot);
}

/** Hash tags in the middle of each sixteenth of a cluster's slots: any shard that holds as much as that has one of them. */
const HEARTBEAT_TAGS = '18 5x dj 3r d2 pv uh iy ly h9 uv q6 9s 5f dt ha'.split(' ');

/**
 * Every key of the app. Keys that one script touches share a hash tag (`{…}`), so they live in one slot of a cluster.
 *
 * @param secret what identities are hashed with; when it changes, their counters begin anew
 * @param ipv6PrefixBits how much of an IPv6 address tells identities apart
 */
export function createKeys(prefix: string, secret: string, ipv6PrefixBits?: number) {
  /** Callers come back: their digests are remembered, as long as the isolate lives. */
  const digests = new BoundedMap<string, string>(2_000);

  /**
   * 128 bits of an HMAC over an identity in its one spelling, for parts of keys that are personal: without the secret, no list
   * of addresses gives them away.
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
    /** String: written to find out whether the shard of another key takes writes. */
    probe: (key: string) => `${prefix}:probe:{${hashTagOf(key)}}`,

    /** A key of an app developer's own. */
    plain: (namespace: string, key: string) => `${prefix}:${namespace}:${key}`,

    /** Hash, one a user: epochs and denied sessions and tokens. */
    blacklist: (userId: string) => `${prefix}:auth:blacklist:{${userId}}`,

    /** Strings: the same heartbeat on every shard. See `services/outbox/history.ts`. */
    heartbeats: HEARTBEAT_TAGS.map((tag) => `${prefix}:auth:heartbeat:{${tag}}`),

    /** Hash, one a session, in the slot of its user's blacklist. */
    session: (sessionId: string) => {
      const userId = userOfSession(sessionId);
      return `${prefix}:session:{${userId}}${sessionId.slice(userId.length)}`;
    },

    /** String, one a policy and identity. The identity is hashed: it may be an address. */
    rateLimit: (policy: string, identity: string) => `${prefix}:ratelimit:${policy}:{${concealed(identity)}}`,

    /** Hash: the numbers that administrators have set, and their version. */
    limitOverrides: `${prefix}:ratelimit:{overrides}`,
    /** Parts of the database's own keys: an account by its e-mail address, and a client's address. */
    account: (email: string) => concealed(`account:${email}`),
    origin: (address: string) => concealed(`address:${address}`),

    /** String: who holds a lock, with its fence; hash: the last fence; string, one a holder: it has left. In one slot. */
    lock: (name: string) => `${prefix}:lock:{${name}}`,
    lockFence: (name: string) => `${prefix}:lock:{${name}}:fence`,
    lockLeft: (name: string, holder: string) => `${prefix}:lock:{${name}}:left:${holder}`,

    /** String: the request that has an idempotency key, and whether it was executed. The name is a hash already. */
    idempotency: (name: string) => `${prefix}:idempotency:{${name}}`,

    /** Hash, one a job: the progress of its run, and the fence of the lock's holder that wrote it. */
    warming: (job: string) => `${prefix}:cache:warming:{${job}}`,

    /** Hashes in one slot: what all isolates have counted; steps of 10 s and of a minute, some to a key. */
    metrics: `${prefix}:metrics:{all}:totals`,
    metricsSteps: (stepMs: number, chunk: number) => `${prefix}:metrics:{all}:${stepMs / 1_000}s:${chunk}`,

    /** String: the cached user, in one slot with the user's tag version. */
    user: (userId: string) => `${prefix}:user:{${userId}}`,
    /** String: the tag version of everything that is cached of a user. It is called nonce in Redis, as in releases before. */
    userVersion: (userId: string) => `${prefix}:user:{${userId}}:nonce`,

    /** String: one cached query of a user's data, likewise. */
    userEntry: (namespace: string, userId: string, hash: string) => `${prefix}:user:{${userId}}:${namespace}:${hash}`,

    /** String: one cached query. */
    cacheEntry: (namespace: string, hash: string) => `${prefix}:cache:${namespace}:{${hash}}`,
    /** String: made once, and gone only after a flush (or its TTL). */
    flushSentinel: `${prefix}:cache:{mark}`,
    namespaceVersion: (namespace: string) => `${prefix}:cache:${namespace}:nonce`,
    tagVersion: (tag: string) => `${prefix}:cache:tag:${createHash('sha256').update(tag).digest('base64url')}`,
  };
}

export type Keys = ReturnType<typeof createKeys>;
