import type { Context } from 'hono';

import type { AppError } from '../errors';
import { PerRequest } from './perRequest';

/**
 * A revoked token whose request may be the repeat of the one that revoked it (a logout, a deleted account): `authenticate()`
 * leaves its refusal to `idempotent()`, which looks the key up.
 */
interface Repeat {
  refusal?: AppError;
  /** `idempotent()` has decided; no check would handle a later refusal. */
  isDecided: boolean;
}

const repeats = new PerRequest<Repeat>();

/** Announces that `idempotent()` will look this request up by its key. */
export function expectRepeat(c: Context): void {
  repeats.set(c, { isDecided: false });
}

/** @returns `false` when this request is not looked up, or was already: the refusal stands */
export function leaveToRepeat(c: Context, refusal: AppError): boolean {
  const repeat = repeats.get(c);
  if (repeat === undefined || repeat.isDecided) return false;
  repeat.refusal = refusal;
  return true;
}

/** The refusal that was left to `idempotent()`; called when it decides. */
export function decideRepeat(c: Context): AppError | undefined {
  const repeat = repeats.get(c);
  if (repeat !== undefined) repeat.isDecided = true;
  return repeat?.refusal;
}

export const refusalOf = (c: Context): AppError | undefined => repeats.get(c)?.refusal;
