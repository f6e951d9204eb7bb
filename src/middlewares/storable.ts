/**
 * Whether a cache may store a response and for how long, by the response's headers: RFC 9111, sections 3 and 4.2. Without such
 * headers, the route's options decide (section 4.2.2 leaves that to the cache).
 */
export interface StoreRules {
  /** Longer bodies are not stored, in bytes. */
  readonly maxBytes: number;
  /** Request headers that are part of the key, lower case. */
  readonly vary: readonly string[];
  /** Further headers to keep, lower case. */
  readonly headers: readonly string[];
  /** The cache is a shared one (RFC 9111, section 1.1). */
  readonly shared: boolean;
}

/** Forms of text that JSON can hold. */
const TEXT = /^(?:application\/(?:[\w.-]+\+)?json|text\/(?!event-stream)[\w.+-]+)\s*(?:;\s*charset=utf-8\s*)?$/i;

/** Whether a response may be stored at all. */
export function isStorable({ status, headers, body }: Response, { vary, shared }: StoreRules): boolean {
  if (status !== 200 || body === null || headers.has('Set-Cookie') || headers.has('Content-Encoding')) return false;
  if (!TEXT.test(headers.get('Content-Type') ?? '')) return false;
  const control = directivesOf(headers.get('Cache-Control'));
  // `no-cache` asks for validation before each reuse, which a handler cannot give. With field names, `no-cache` and
  // `private` are taken as if they had none: sections 5.2.2.4 and 5.2.2.7 allow that.
  if (control.has('no-store') || control.has('no-cache') || (shared && control.has('private'))) return false;
  // A header that is not part of the key must not select the response (section 4.1); `*` is never part of the key.
  return listOf(headers.get('Vary')).every((name) => vary.includes(name));
}

/**
 * How long a response is fresh by its own headers, in milliseconds from now; `undefined` without such headers. Values that
 * cannot be parsed count as stale (section 4.2.1).
 */
export function lifetimeMs({ headers }: Pick<Response, 'headers'>, shared: boolean, nowMs: number): number | undefined {
  const control = directivesOf(headers.get('Cache-Control'));
  const age = secondsOf(headers.get('Age') ?? '0') * 1_000;
  const stated = (shared ? control.get('s-maxage') : undefined) ?? control.get('max-age');
  if (stated !== undefined) return Math.min(...stated.map(secondsOf)) * 1_000 - age;
  const expires = headers.get('Expires');
  if (expires === null) return undefined;
  const endMs = Date.parse(expires);
  const dateMs = Date.parse(headers.get('Date') ?? '');
  return Number.isNaN(endMs) ? 0 : endMs - (Number.isNaN(dateMs) ? nowMs : dateMs) - age;
}

/** Section 1.2.2: digits alone. */
const secondsOf = (text: string): number => (/^\d{1,15}$/.test(text.trim()) ? Number(text) : 0);

/** Directives with all their arguments, names in lower case. Commas and names inside a quoted argument are its own. */
function directivesOf(header: string | null): ReadonlyMap<string, readonly string[]> {
  const directives = new Map<string, string[]>();
  for (const [, name = '', quoted, token] of (header ?? '').matchAll(
    /(?:^|,)\s*([^\s,=;"]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/g,
  )) {
    const key = name.toLowerCase();
    directives.set(key, [...(directives.get(key) ?? []), quoted ?? token ?? '']);
  }
  return directives;
}

/** A list of tokens in lower case. */
function listOf(header: string | null): string[] {
  return (header ?? '').split(',').flatMap((part) => part.trim().toLowerCase() || []);
}
