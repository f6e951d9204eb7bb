import { PROPAGATION_SECONDS } from '../config/keyRotation.ts';
import type { KeyState, SetKind } from '../config/keySet.ts';

interface RotatedKey {
  kid: string;
  state: KeyState;
  since?: string;
}

interface Keys<Key> {
  keys: Key[];
}

/** The changes of one step of a rotation, by `kid`. */
export type Step =
  | { kind: 'published'; next: string }
  | { kind: 'promoted'; active: string; retired: string }
  | { kind: 'dropped'; kids: string[] }
  /** There was no retired key to drop. */
  | { kind: 'none' };

/** How long the tokens of each set live, in seconds; `undefined` for peppers, whose hashes have no end. */
export type Lifetimes = Readonly<Record<SetKind, number | undefined>>;

export { PROPAGATION_SECONDS };

/** A step that comes too early: what it would break, and when it may be taken. */
export interface TooEarly {
  kid: string;
  /** Earliest safe time, in milliseconds since the epoch; `undefined` when the set has no date for it. */
  atMs: number | undefined;
}

/**
 * One step of a rotation. With no `next` key one is published, so that every isolate and every cache of the JWKS knows
 * it before it signs anything; otherwise `next` becomes `active` and `active` becomes `retired`.
 *
 * @param makeNext called only when a key is needed
 */
export async function rotate<Key extends RotatedKey>(
  { keys }: Keys<Key>,
  makeNext: () => Promise<Key>,
  nowMs = Date.now(),
): Promise<{ set: Keys<Key>; step: Step }> {
  const next = nextOf(keys);
  if (next === undefined) {
    const made = await makeNext();
    return { set: { keys: [...keys, made] }, step: { kind: 'published', next: made.kid } };
  }
  const active = keys.find((key) => key.state === 'active')!;
  const since = new Date(nowMs).toISOString();
  const moved = keys.map((key): Key => {
    if (key === next) return { ...key, state: 'active', since };
    return key === active ? { ...key, state: 'retired', since } : key;
  });
  return { set: { keys: moved }, step: { kind: 'promoted', active: next.kid, retired: active.kid } };
}

/** The first one: it has been known for longest. */
const nextOf = <Key extends RotatedKey>(keys: readonly Key[]) => keys.find((key) => key.state === 'next');

/**
 * Drops the retired keys, or of them only `kid`: what they signed is refused from then on. A step of its own, so that
 * nothing else hides it.
 */
export function dropRetired<Key extends RotatedKey>({ keys }: Keys<Key>, kid?: string): { set: Keys<Key>; step: Step } {
  const dropped = droppable(keys, kid);
  const kids = dropped.map((key) => key.kid);
  if (kids.length === 0) return { set: { keys }, step: { kind: 'none' } };
  return { set: { keys: keys.filter((key) => !dropped.includes(key)) }, step: { kind: 'dropped', kids } };
}

const droppable = <Key extends RotatedKey>(keys: readonly Key[], kid: string | undefined) =>
  keys.filter((key) => key.state === 'retired' && (kid === undefined || key.kid === kid));

/** Whether the next key of a set would sign before every isolate knows it. */
export function promotesTooEarly({ keys }: Keys<RotatedKey>, nowMs: number): TooEarly | undefined {
  const next = nextOf(keys);
  return next === undefined ? undefined : tooEarly(next, PROPAGATION_SECONDS, nowMs);
}

/** The retired keys of a set whose tokens may still be in use. */
export function dropsTooEarly(
  { keys }: Keys<RotatedKey>,
  { lifetimeSeconds, kid, nowMs }: { lifetimeSeconds: number; kid?: string | undefined; nowMs: number },
): TooEarly[] {
  return droppable(keys, kid).flatMap((key) => tooEarly(key, lifetimeSeconds + PROPAGATION_SECONDS, nowMs) ?? []);
}

function tooEarly({ kid, since }: RotatedKey, waitSeconds: number, nowMs: number): TooEarly | undefined {
  const sinceMs = since === undefined ? Number.NaN : Date.parse(since);
  if (Number.isNaN(sinceMs)) return { kid, atMs: undefined };
  const atMs = sinceMs + waitSeconds * 1_000;
  return nowMs < atMs ? { kid, atMs } : undefined;
}
