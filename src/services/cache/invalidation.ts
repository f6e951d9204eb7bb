import type { Command } from '../../redis/client';
import type { Keys } from '../../redis/keys';
import { bump, tombstone } from './entry';
import type { CacheKey } from './entry';

/** The data that changed. A namespace, tag or user costs one command, for any number of entries. */
export interface Invalidation {
  readonly keys?: readonly Pick<CacheKey, 'entryKey'>[];
  readonly namespaces?: readonly string[];
  readonly tags?: readonly string[];
  readonly users?: readonly string[];
}

/** The Redis commands of an invalidation, for a request or the outbox to send. The reply to each is `OK`. */
export function invalidationCommands(
  keys: Keys,
  { keys: entries = [], namespaces = [], tags = [], users = [] }: Invalidation,
  tombstoneSeconds: number,
): Command[] {
  return [
    ...entries.map(({ entryKey }): Command => ['SET', entryKey, tombstone(), 'PX', tombstoneSeconds * 1_000]),
    ...namespaces.map((namespace) => bump(keys.namespaceVersion(namespace))),
    ...tags.map((tag) => bump(keys.tagVersion(tag))),
    ...users.map((user) => bump(keys.userVersion(user))),
  ];
}

/** The Redis keys that these commands write. */
export function keysOf(commands: readonly Command[]): string[] {
  return commands.map(([, key]) => String(key));
}

/** The invalidation in a form that may be stored: without the arguments of its keys, which can be personal. */
export function recordable({ keys, ...groups }: Invalidation): Invalidation {
  return { ...groups, ...(keys !== undefined && { keys: keys.map(({ entryKey }) => ({ entryKey })) }) };
}
