import type { RedisBatch } from '../../redis/batch';
import type { Command, RedisValue } from '../../redis/client';
import { RedisError } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { NONCE_TTL_MS, bump, initialNonce, isInitial, isNonce } from './entry';
import type { CacheKey, Snapshot } from './entry';
import type { CacheMemory } from './memory';

/** Nonces that were missing, and that a load's fills will carry. */
export interface Claim {
  /** The loader may run. */
  readonly ready: Promise<void>;
  /** By their keys, those that Redis has; a fill that would carry another must not be sent. */
  readonly granted: Promise<ReadonlyMap<string, string>>;
}

export interface ClaimDeps {
  batch: RedisBatch;
  keys: Keys;
  memory: CacheMemory;
  degraded: (what: string) => void;
}

const NONE: ReadonlyMap<string, string> = new Map();

/**
 * Makes missing nonces while the loader runs, at no cost to the request: `SET … NX` with a value that tells that nobody
 * has invalidated anything since the nonce was missing. An invalidation in the meantime, before or after it, has written
 * a value of the other kind: then nothing is filled, or what is filled is never current. What another isolate has made
 * in this way since is as good as our own.
 *
 * One thing could undo that: a flush that makes Redis forget the invalidation before our NX arrives. The mark tells: it
 * was read before the loader ran, and once more behind the NX; a flush in between has taken it. Where no mark is known
 * (the first load after a flush, or ever) there is no such witness, and the nonces are made before the loader runs: that
 * costs this one load a round trip.
 */
export function claim(missing: readonly string[], { batch, keys, memory, degraded }: ClaimDeps): Claim {
  if (missing.length === 0) return { ready: Promise.resolve(), granted: Promise.resolve(NONE) };

  const known = memory.mark;
  // With no mark known one is made along with them.
  const names = known === undefined ? [...missing, keys.cacheMark] : missing;
  const chosen = names.map(() => initialNonce());
  const commands = [
    ...names.map((name, at): Command => ['SET', name, chosen[at] ?? '', 'NX', 'PX', NONCE_TTL_MS]),
    ['MGET', ...missing, keys.cacheMark] as const,
  ];

  const grantedOf = (replies: readonly RedisValue[]): ReadonlyMap<string, string> => {
    const read = replies.at(-1);
    if (!Array.isArray(read) || read.length !== missing.length + 1) return NONE;
    // What NX has just written is ours whatever a replica says that lags behind.
    const values = [...missing, keys.cacheMark].map((_, at) => (replies[at] === 'OK' ? chosen[at] : read[at]) ?? null);
    const mark = values.at(-1);
    memory.mark = isNonce(mark) ? mark : undefined;
    // A key of another type, or with foreign text, is no nonce and stands in the way of one.
    const foreign = names.filter((_, at) => !isNonce(values[at]));
    if (foreign.length > 0) void batch.aside(...foreign.map((name) => bump(name)));
    if (memory.mark === undefined || (known !== undefined && memory.mark !== known)) return NONE;
    // Before the loader has run any nonce will do.
    const fit = (value: unknown): value is string => (known === undefined ? isNonce(value) : isInitial(value));
    return new Map(
      missing.flatMap((name, at) => {
        const value = values[at];
        return fit(value) ? [[name, value] as const] : [];
      }),
    );
  };
  const none = (error: unknown): ReadonlyMap<string, string> => {
    if (!(error instanceof RedisError)) throw error;
    degraded('cache=bypass');
    return NONE;
  };

  if (known !== undefined) {
    return { ready: Promise.resolve(), granted: batch.aside(...commands).then(grantedOf, none) };
  }
  const granted = Promise.all(commands.map((command) => batch.send(...command))).then(grantedOf, none);
  return { ready: granted.then(() => undefined), granted };
}

/** What a fill carries: the nonces that were there, and those that were made; `undefined` when one could not be. */
export function carried(
  { nonceKeys }: CacheKey,
  { nonces }: Snapshot,
  granted: ReadonlyMap<string, string>,
): readonly string[] | undefined {
  const all = nonceKeys.map((name, at) => nonces[at] ?? granted.get(name));
  return all.every((nonce) => nonce !== undefined) ? all : undefined;
}
