import { createHash } from 'node:crypto';

import type { CacheSchema } from '../services/cache.service';
import { isStorable, lifetimeMs } from './storable';
import type { StoreRules } from './storable';

/** A whole response, as it is cached. */
export interface CachedResponse {
  /** Those of the handler's own headers that are kept. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Strong: over the body's bytes (RFC 9110, section 8.8.3). */
  readonly etag: string;
  /** Fresh until then by the handler's headers; milliseconds since the epoch. */
  readonly untilMs?: number;
}

/**
 * Accepts entries that may be served at this time. The cache treats others as a miss, whatever the route's own times are. So a
 * response whose lifetime its handler has limited is not served stale either.
 */
export function reusableAt(nowMs: number): CacheSchema<CachedResponse> {
  const validate = (value: unknown) => {
    const { untilMs } = value as Partial<CachedResponse>;
    return untilMs === undefined || nowMs < untilMs ? { value } : { issues: [{ message: 'is no longer fresh' }] };
  };
  return { '~standard': { version: 1, vendor: 'gatehouse', validate } };
}

/** Headers that describe the body; any other may belong to one request alone. */
const KEPT = [
  'content-type',
  'content-language',
  'content-disposition',
  'last-modified',
  'link',
  'cache-control',
  'expires',
];

/** The storable part of a handler's response; `undefined` when it must not be stored. The response stays readable. */
export async function cacheableFrom(
  response: Response,
  rules: StoreRules,
  nowMs: number,
): Promise<CachedResponse | undefined> {
  if (!isStorable(response, rules)) return undefined;
  const freshMs = lifetimeMs(response, rules.shared, nowMs);
  if (freshMs !== undefined && freshMs <= 0) return undefined;
  const body = await textUpTo(response.clone(), rules.maxBytes);
  if (body === undefined) return undefined;
  const kept = [...KEPT, ...rules.headers].flatMap((name) => {
    const value = response.headers.get(name);
    return value === null ? [] : [[name, value] as const];
  });
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 27)}"`;
  return { headers: Object.fromEntries(kept), body, etag, ...(freshMs !== undefined && { untilMs: nowMs + freshMs }) };
}

async function textUpTo(response: Response, maxBytes: number): Promise<string | undefined> {
  if (Number(response.headers.get('Content-Length') ?? 0) > maxBytes) return undefined;
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let text = '';
  let bytes = 0;
  const reader = response.body?.getReader();
  try {
    for (let part = await reader?.read(); part?.done === false; part = await reader?.read()) {
      const chunk: Uint8Array = part.value;
      bytes += chunk.byteLength;
      if (bytes > maxBytes) return undefined;
      text += decoder.decode(chunk, { stream: true });
    }
    return text + decoder.decode();
  } catch (error) {
    // Not UTF-8, whatever its header says.
    if (error instanceof TypeError) return undefined;
    throw error;
  } finally {
    // The client's copy of the body continues.
    reader?.cancel().catch(() => undefined);
  }
}

/** Whether the client has this already (RFC 9110, section 13.1.2: weak comparison). */
export function matches(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  return ifNoneMatch.trim() === '*' || ifNoneMatch.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag);
}
