import type { Command } from '../../redis/client';
import type { Keys } from '../../redis/keys';
import { bump, tombstone } from './entry';
import type { CacheKey } from './entry';

/** What changed. A namespace, tag or user costs one command, whatever the number of entries under it. */
export interface Invalidation {
  readonly keys?: readonly Pick<CacheKey, 'entryKey'>[];
  readonly namespaces?: readonly string[];
  readonly tags?: readonly string[];
  readonly users?: readonly string[];
}

/** The commands that an invalidation is, for whoever sends them (a request, or the outbox). Each is answered `OK`. */
export function invalidationCommands(
  keys: Keys,
  { keys: entries = [], namespaces = [], tags = [], users = [] }: Invalidation,
  tombstoneSeconds: number,
): Command[] {
  return [
    ...entries.map(({ entryKey }): Command => ['SET', entryKey, tombstone(), 'PX', tombstoneSeconds * 1_000]),
    ...namespaces.map((namespace) => bump(keys.namespaceNonce(namespace))),
    ...tags.map((tag) => bump(keys.tagNonce(tag))),
    ...users.map((user) => bump(keys.userNonce(user))),
  ];
}

/** The Redis keys that these commands of an invalidation write. */
export function keysOf(commands: readonly Command[]): string[] {
  return commands.map(([, key]) => String(key));
}

/** As it may be written down: without the arguments that keys were made of. */
export function recordable({ keys, ...groups }: Invalidation): Invalidation {
  return { ...groups, ...(keys !== undefined && { keys: keys.map(({ entryKey }) => ({ entryKey })) }) };
}
