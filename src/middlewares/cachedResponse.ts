import { createHash } from 'node:crypto';

import type { CacheSchema } from '../services/cache.service';
import { isStorable, lifetimeMs } from './storable';
import type { StoreRules } from './storable';

/** A whole answer, as it is cached. */
export interface StoredResponse {
  /** Those of the handler's own headers that are kept. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Strong: over the body's bytes (RFC 9110, section 8.8.3). */
  readonly etag: string;
  /** Until when the handler has said that it is fresh; milliseconds since the epoch. */
  readonly untilMs?: number;
}

/**
 * What may be answered at a time: the cache takes what does not pass for a miss, whatever the route's own times are. So what
 * a handler has limited is not served stale either.
 */
export function reusableAt(nowMs: number): CacheSchema<StoredResponse> {
  const validate = (value: unknown) => {
    const { untilMs } = value as Partial<StoredResponse>;
    return untilMs === undefined || nowMs < untilMs ? { value } : { issues: [{ message: 'is no longer fresh' }] };
  };
  return { '~standard': { version: 1, vendor: 'gatehouse', validate } };
}

/** What describes the body; anything else may belong to one request alone. */
const KEPT = [
  'content-type',
  'content-language',
  'content-disposition',
  'last-modified',
  'link',
  'cache-control',
  'expires',
];

/** What may be stored of a handler's answer; `undefined` when nothing may. The response stays readable. */
export async function storedFrom(
  response: Response,
  rules: StoreRules,
  nowMs: number,
): Promise<StoredResponse | undefined> {
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
    // The other half of the body is the client's, and goes on.
    reader?.cancel().catch(() => undefined);
  }
}

/** Whether the client has this already (RFC 9110, section 13.1.2: weak comparison). */
export function matches(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  return ifNoneMatch.trim() === '*' || ifNoneMatch.split(',').some((tag) => tag.trim().replace(/^W\//, '') === etag);
}
