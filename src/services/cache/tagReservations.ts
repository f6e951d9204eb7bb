import type { RedisBatch } from '../../redis/batch';
import type { Command, RedisValue } from '../../redis/client';
import { RedisError } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import { TAG_VERSION_TTL_MS, bump, initialTagVersion, isInitial, isTagVersion } from './entry';
import type { CacheKey, Snapshot } from './entry';
import type { CacheMemory } from './memory';

/** Missing tag versions that a load creates for its fills. */
export interface TagReservation {
  /** Resolves when the loader may run. */
  readonly ready: Promise<void>;
  /** The versions in Redis, by key. A fill with any other version must not be sent. */
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
 * Creates missing tag versions while the loader runs, so they cost the request no time: `SET … NX` with an initial value.
 * An initial value means that there was no invalidation since the tag version was missing. An invalidation writes a value
 * of another kind: before the NX, it prevents the fill; after the NX, it makes the filled entry outdated. An initial value
 * from another isolate serves equally well.
 *
 * One event could break this: a flush that removes the invalidation before the NX arrives. The flush sentinel detects it:
 * it is read before the loader runs, and again after the NX; a flush in between has removed it. If no flush sentinel is
 * known (the first load ever, or after a flush), the tag versions are created before the loader runs, which costs this load
 * one round trip.
 */
export function reserveTagVersions(
  missing: readonly string[],
  { batch, keys, memory, degraded }: TagReservationDeps,
): TagReservation {
  if (missing.length === 0) return { ready: Promise.resolve(), granted: Promise.resolve(NONE) };

  const known = memory.flushSentinel;
  // If no flush sentinel is known, create one as well.
  const names = known === undefined ? [...missing, keys.flushSentinel] : missing;
  const chosen = names.map(() => initialTagVersion());
  const commands = [
    ...names.map((name, at): Command => ['SET', name, chosen[at] ?? '', 'NX', 'PX', TAG_VERSION_TTL_MS]),
    ['MGET', ...missing, keys.flushSentinel] as const,
  ];

  const grantedOf = (replies: readonly RedisValue[]): ReadonlyMap<string, string> => {
    const read = replies.at(-1);
    if (!Array.isArray(read) || read.length !== missing.length + 1) return NONE;
    // A value that NX has just written exists, even if a lagging replica does not show it yet.
    const values = [...missing, keys.flushSentinel].map(
      (_, at) => (replies[at] === 'OK' ? chosen[at] : read[at]) ?? null,
    );
    const sentinel = values.at(-1);
    memory.flushSentinel = isTagVersion(sentinel) ? sentinel : undefined;
    // A key of another type, or with foreign text, is not a tag version, and makes NX fail.
    const foreign = names.filter((_, at) => !isTagVersion(values[at]));
    if (foreign.length > 0) void batch.aside(...foreign.map((name) => bump(name)));
    if (memory.flushSentinel === undefined || (known !== undefined && memory.flushSentinel !== known)) return NONE;
    // Before the loader has run, any tag version is recent enough.
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

/** The tag versions for a fill: existing and created ones. `undefined` if one could not be created. */
export function carriedVersions(
  { tagVersionKeys }: CacheKey,
  { tagVersions }: Snapshot,
  granted: ReadonlyMap<string, string>,
): readonly string[] | undefined {
  const all = tagVersionKeys.map((name, at) => tagVersions[at] ?? granted.get(name));
  return all.every((version) => version !== undefined) ? all : undefined;
}
