import { describeError, log } from '../config/log';
import type { StoredResponse } from '../services/idempotency.service';

/** Headers that describe the body or the result. Any other header belongs to one request. */
const KEPT = ['content-type', 'content-language', 'content-disposition', 'etag', 'last-modified', 'link', 'location'];

/** Statuses after which a client may retry, with the same or with other credentials. */
const AGAIN = new Set([401, 408, 409, 425, 429]);

/** Whether a response is final: a retry would not be executed again. */
export const isFinal = (status: number) => status < 500 && !AGAIN.has(status);

/**
 * The stored form of a response; `undefined` if it is too long or sets a cookie. It reads a copy of the body, so the response
 * stays readable.
 */
export function storedFrom(
  response: Response,
  { headers, maxBytes }: { headers: readonly string[]; maxBytes: number },
): Promise<StoredResponse | undefined> | undefined {
  if (response.headers.has('Set-Cookie')) return undefined;
  if (Number(response.headers.get('Content-Length') ?? 0) > maxBytes) return undefined;
  const kept = [...KEPT, ...headers].flatMap((name) => {
    const value = response.headers.get(name);
    return value === null ? [] : [[name, value] as const];
  });
  const { status } = response;
  return bytesUpTo(response.clone(), maxBytes).then(
    (body) => body && { status, headers: Object.fromEntries(kept), body },
    (error: unknown) => {
      // The client's half of the body has failed as well.
      log('warn', 'idempotency.response_unread', describeError(error));
      return undefined;
    },
  );
}

async function bytesUpTo({ body }: Response, maxBytes: number): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of (body ?? []) as AsyncIterable<Uint8Array>) {
    length += chunk.byteLength;
    if (length > maxBytes) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
