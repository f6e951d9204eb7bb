import type { RedisBatch } from '../../redis/batch';
import type { Command, RedisValue } from '../../redis/client';
import { RedisError } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { NONCE_TTL_MS, newNonce } from './entry';
import type { CacheMemory } from './memory';

/** Nonces that were missing, and that a load's fills will carry. */
export interface Claim {
  /** By their keys. Chosen before the loader runs. */
  readonly nonces: ReadonlyMap<string, string>;
  /** The loader may run. */
  readonly ready: Promise<void>;
  /** Those that Redis has taken. A fill that carries another must not be sent. */
  readonly granted: Promise<ReadonlySet<string>>;
}

export interface ClaimDeps {
  batch: RedisBatch;
  keys: Keys;
  memory: CacheMemory;
  degraded: (what: string) => void;
}

const NONE: ReadonlySet<string> = new Set();

/**
 * Makes missing nonces while the loader runs, at no cost to the request. Their values are chosen here before the loader
 * runs, and made with `SET … NX`. An invalidation that comes first has set another value, and NX fails; one that comes
 * later overwrites ours: either way what the fill carries is never current again.
 *
 * One thing could undo that: a flush that makes Redis forget the invalidation before our NX arrives. The mark tells: it
 * was read before the loader ran, and once more behind the NX; a flush in between has taken it. Where no mark is known
 * (the first load after a flush, or ever) there is no such witness, and the nonces are made before the loader runs: that
 * costs this one load a round trip.
 */
export function claim(missing: readonly string[], { batch, keys, memory, degraded }: ClaimDeps): Claim {
  const nonces = new Map(missing.map((name) => [name, newNonce()]));
  if (nonces.size === 0) return { nonces, ready: Promise.resolve(), granted: Promise.resolve(NONE) };

  const create = (name: string, value: string): Command => ['SET', name, value, 'NX', 'PX', NONCE_TTL_MS];
  const overwrite = (name: string): Command => ['SET', name, newNonce(), 'PX', NONCE_TTL_MS];
  const makeAll = missing.map((name) => create(name, nonces.get(name) ?? ''));
  const readAll: Command = ['MGET', keys.cacheMark, ...missing];

  const grantedOf = (reply: RedisValue | undefined, known: string | undefined): ReadonlySet<string> => {
    const [mark, ...values] = Array.isArray(reply) ? reply : [];
    memory.mark = typeof mark === 'string' ? mark : undefined;
    // A key of another type is no nonce, and stands in the way of one.
    const foreign = missing.filter((_, index) => values[index] === null);
    if (mark === null && known === undefined) foreign.push(keys.cacheMark);
    if (foreign.length > 0) void batch.aside(...foreign.map((name) => overwrite(name)));
    if (mark == null || (known !== undefined && mark !== known)) return NONE;
    return new Set(missing.filter((name, index) => values[index] === nonces.get(name)));
  };
  const none = (error: unknown): ReadonlySet<string> => {
    if (!(error instanceof RedisError)) throw error;
    degraded('cache=bypass');
    return NONE;
  };

  const known = memory.mark;
  if (known !== undefined) {
    const granted = batch.aside(...makeAll, readAll).then((replies) => grantedOf(replies.at(-1), known), none);
    return { nonces, ready: Promise.resolve(), granted };
  }
  const commands: Command[] = [...makeAll, create(keys.cacheMark, newNonce()), readAll];
  const granted = Promise.all(commands.map((command) => batch.send(...command))).then((replies) => {
    const reply = replies.at(-1);
    const [, ...values] = Array.isArray(reply) ? reply : [];
    // Nobody has loaded anything yet: what others have made in the meantime is as good.
    missing.forEach((name, index) => {
      const value = values[index];
      if (typeof value === 'string') nonces.set(name, value);
    });
    return grantedOf(reply, undefined);
  }, none);
  return { nonces, ready: granted.then(() => undefined), granted };
}
