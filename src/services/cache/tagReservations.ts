import type { RedisBatch } from '../../redis/batch';
import type { Command, RedisValue } from '../../redis/client';
import { RedisError } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { TAG_VERSION_TTL_MS, bump, initialTagVersion, isInitial, isTagVersion } from './entry';
import type { CacheKey, Snapshot } from './entry';
import type { CacheMemory } from './memory';

/** Missing tag versions that a load makes for its fills. */
export interface TagReservation {
  /** The loader may run. */
  readonly ready: Promise<void>;
  /** By their keys, those that Redis has; a fill that would carry another must not be sent. */
  readonly granted: Promise<ReadonlyMap<string, string>>;
}

export interface TagReservationDeps {
  batch: RedisBatch;
  keys: Keys;
  memory: CacheMemory;
  degraded: (what: string) => void;
}

const NONE: ReadonlyMap<string, string> = new Map();

/**
 * Makes missing tag versions while the loader runs, so they cost the request no time: `SET … NX` with an initial value. An
 * initial value means that nothing was invalidated since the tag version was missing. An invalidation writes a value of the other
 * kind: if it comes before the NX, nothing is filled; if it comes after, the filled entry is never current. An initial value that
 * another isolate has made meanwhile is as good as our own.
 *
 * One thing could break this: a flush that removes the invalidation before our NX arrives. The flush sentinel detects it. It is
 * read before the loader runs, and again after the NX; a flush in between has removed it. Where no flush sentinel is known (the
 * first load after a flush, or ever), the tag versions are made before the loader runs, which costs this one load a round trip.
 */
export function reserveTagVersions(
  missing: readonly string[],
  { batch, keys, memory, degraded }: TagReservationDeps,
): TagReservation {
  if (missing.length === 0) return { ready: Promise.resolve(), granted: Promise.resolve(NONE) };

  const known = memory.flushSentinel;
  // With no flush sentinel known one is made along with them.
  const names = known === undefined ? [...missing, keys.flushSentinel] : missing;
  const chosen = names.map(() => initialTagVersion());
  const commands = [
    ...names.map((name, at): Command => ['SET', name, chosen[at] ?? '', 'NX', 'PX', TAG_VERSION_TTL_MS]),
    ['MGET', ...missing, keys.flushSentinel] as const,
  ];

  const grantedOf = (replies: readonly RedisValue[]): ReadonlyMap<string, string> => {
    const read = replies.at(-1);
    if (!Array.isArray(read) || read.length !== missing.length + 1) return NONE;
    // A value that NX has just written is there, even if a lagging replica does not show it yet.
    const values = [...missing, keys.flushSentinel].map(
      (_, at) => (replies[at] === 'OK' ? chosen[at] : read[at]) ?? null,
    );
    const sentinel = values.at(-1);
    memory.flushSentinel = isTagVersion(sentinel) ? sentinel : undefined;
    // A key of another type, or with foreign text, is no tag version and stands in the way of one.
    const foreign = names.filter((_, at) => !isTagVersion(values[at]));
    if (foreign.length > 0) void batch.aside(...foreign.map((name) => bump(name)));
    if (memory.flushSentinel === undefined || (known !== undefined && memory.flushSentinel !== known)) return NONE;
    // Before the loader has run any tag version will do.
    const fit = (value: unknown): value is string => (known === undefined ? isTagVersion(value) : isInitial(value));
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

/**
 * The tag versions that a fill carries: those that were there and those that were made. `undefined` when one could not be made.
 */
export function carriedVersions(
  { tagVersionKeys }: CacheKey,
  { tagVersions }: Snapshot,
  granted: ReadonlyMap<string, string>,
): readonly string[] | undefined {
  const all = tagVersionKeys.map((name, at) => tagVersions[at] ?? granted.get(name));
  return all.every((version) => version !== undefined) ? all : undefined;
}
