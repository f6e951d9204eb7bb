import type { KeySetConfig, KeyState } from './keySet.ts';

/**
 * How long a step takes to be known everywhere, in seconds: a deployment that follows it at once, and what others may
 * cache of `/.well-known/jwks.json`, which is five minutes.
 */
export const PROPAGATION_SECONDS = 600;

/** How far the rotation of a key set has come. */
export interface Rotation {
  keys: { kid: string; state: KeyState; sinceMs: number | undefined }[];
  next: {
    /** `publish` a next key, at any time; `promote` the next key; `drop` the retired keys. */
    step: 'publish' | 'promote' | 'drop';
    /** Earliest safe time; `undefined` when there is none, or the set does not tell. */
    safeAtMs: number | undefined;
  };
}

/** @param lifetimeSeconds how long what these keys sign is good; `undefined` for peppers, which have no end */
export function rotationOf({ keys }: KeySetConfig, lifetimeSeconds: number | undefined, nowMs: number): Rotation {
  const known = keys.map(({ kid, state, since }) => {
    const sinceMs = typeof since === 'string' ? Date.parse(since) : Number.NaN;
    // A date that no clock has reached is a mistake, and tells nothing.
    return { kid, state, sinceMs: sinceMs <= nowMs ? sinceMs : undefined };
  });
  const after = (state: KeyState, waitSeconds: number) => {
    const times = known.filter((key) => key.state === state).map(({ sinceMs }) => sinceMs);
    return times.some((time) => time === undefined) ? undefined : Math.max(...times.map(Number)) + waitSeconds * 1_000;
  };
  const has = (state: KeyState) => known.some((key) => key.state === state);
  if (has('next')) return { keys: known, next: { step: 'promote', safeAtMs: after('next', PROPAGATION_SECONDS) } };
  if (has('retired') && lifetimeSeconds !== undefined) {
    const safeAtMs = after('retired', lifetimeSeconds + PROPAGATION_SECONDS);
    return { keys: known, next: { step: 'drop', safeAtMs } };
  }
  return { keys: known, next: { step: 'publish', safeAtMs: undefined } };
}
