import type { KeySetConfig, KeyState } from './keySet.ts';

/**
 * How long it takes until every isolate and verifier knows a step, in seconds: a deployment right after it, and the five
 * minutes for which verifiers may cache `/.well-known/jwks.json`.
 */
export const PROPAGATION_SECONDS = 600;

/** State of a key set's rotation. */
export interface Rotation {
  keys: { kid: string; state: KeyState; sinceMs: number | undefined }[];
  next: {
    /** `publish` a next key, at any time; `promote` the next key; `drop` the retired keys. */
    step: 'publish' | 'promote' | 'drop';
    /** Earliest safe time; `undefined` when there is none, or the set does not contain it. */
    safeAtMs: number | undefined;
  };
}

/** @param lifetimeSeconds how long tokens signed by these keys are valid; `undefined` for peppers, whose hashes do not expire */
export function rotationOf({ keys }: KeySetConfig, lifetimeSeconds: number | undefined, nowMs: number): Rotation {
  const known = keys.map(({ kid, state, since }) => {
    const sinceMs = typeof since === 'string' ? Date.parse(since) : Number.NaN;
    // A date in the future is a mistake, and is ignored.
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
