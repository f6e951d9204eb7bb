import { createHash } from 'node:crypto';

/** A whole answer, as it is cached. */
export interface StoredResponse {
  /** Those of the handler's own headers that are kept. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Strong: over the body's bytes (RFC 9110, section 8.8.3). */
  readonly etag: string;
}

export interface StoreRules {
  /** Longer bodies are not stored, in bytes. */
  readonly maxBytes: number;
  /** Request headers that are part of the key, lower case. */
  readonly vary: readonly string[];
  /** Further headers to keep, lower case. */
  readonly headers: readonly string[];
  readonly shared: boolean;
}

/** What describes the body; anything else may belong to one request alone. */
const KEPT = ['content-type', 'content-language', 'content-disposition', 'last-modified', 'link', 'cache-control'];

const TEXT = /^(?:application\/(?:[\w.-]+\+)?json|text\/(?!event-stream)[\w.+-]+)\s*(?:;\s*charset=utf-8\s*)?$/i;

/** What may be stored of a handler's answer; `undefined` when nothing may. The response stays readable. */
export async function storedFrom(response: Response, rules: StoreRules): Promise<StoredResponse | undefined> {
  if (!isStorable(response, rules)) return undefined;
  const body = await textUpTo(response.clone(), rules.maxBytes);
  if (body === undefined) return undefined;
  const kept = [...KEPT, ...rules.headers].flatMap((name) => {
    const value = response.headers.get(name);
    return value === null ? [] : [[name, value] as const];
  });
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 27)}"`;
  return { headers: Object.fromEntries(kept), body, etag };
}

function isStorable({ status, headers, body }: Response, { vary, shared }: StoreRules): boolean {
  if (status !== 200 || body === null || headers.has('Set-Cookie') || headers.has('Content-Encoding')) return false;
  if (!TEXT.test(headers.get('Content-Type') ?? '')) return false;
  const control = new Set(listOf(headers.get('Cache-Control')).map((directive) => directive.split('=')[0]));
  if (control.has('no-store') || (shared && control.has('private'))) return false;
  // Its answer depends on something that the key does not hold.
  return listOf(headers.get('Vary')).every((name) => name === 'origin' || vary.includes(name));
}

/** A list of tokens in lower case. */
export function listOf(header: string | null): string[] {
  return (header ?? '').split(',').flatMap((part) => part.trim().toLowerCase() || []);
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
