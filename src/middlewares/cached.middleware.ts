import type { Context, Next } from 'hono';

import { CacheService } from '../services/cache.service';
import type { CacheResult, LoaderContext, QueryOptions } from '../services/cache.service';
import { afterResponse } from './afterResponse';
import type { ContextWith } from './appEnv';
import { authOf } from './auth.middleware';
import type { AuthVariables } from './auth.middleware';
import { matches, reusableAt, cacheableFrom } from './cachedResponse';
import type { CachedResponse } from './cachedResponse';
import { FROM_MEMORY, check } from './check';
import type { Check } from './check';
import type { AppEnv } from './services.middleware';
import type { StoreRules } from './storable';

/** Options of {@link cached}. */
export interface CachedOptions {
  /** How long a response is fresh. An invalidation ends it at once. */
  ttlSeconds: number;
  /** After the TTL it is still served at once for this long, and refreshed after the response. @default 0 */
  staleSeconds?: number;
  /** After the TTL it is served for this long when the handler fails (a status from 500 on). @default 0 */
  staleIfErrorSeconds?: number;
  /** The namespace for `CacheService.invalidate({ namespaces })`. @default 'http' */
  namespace?: string;
  /** Tags whose invalidation ends it. A user's own responses also end with `invalidate({ users })`. */
  tags?: readonly string[] | ((c: ContextWith<Partial<AuthVariables>>) => readonly string[]);
  /**
   * One response for all callers. By default each authenticated user has their own responses, and a request with
   * credentials that `authenticate()` has not checked is not cached at all. @default false
   */
  shared?: boolean;
  /** Request headers that the response depends on, also those that identify the caller. @default [] */
  vary?: readonly string[];
  /**
   * How long a client may use its copy without asking, counted from when the response was made. An invalidation does not
   * reach that copy. 0: the client asks each time, and mostly gets 304. @default 0
   */
  clientSeconds?: number;
  /** Further response headers to store, beside those that describe the body. @default [] */
  headers?: readonly string[];
  /** Longer bodies are served, but not cached. @default 262_144 */
  maxBytes?: number;
  /** Takes a lease in Redis, so that only one isolate loads at a time; see `CacheService.query`. @default false */
  lease?: boolean;
  /** For how long an isolate may serve a fresh response without asking Redis again; see `CacheService.query`. @default 0 */
  withinSeconds?: number;
}

const MEMORY = '; detail=memory';

const SAID_BY_HANDLER = ['Vary', 'Cache-Control', 'Expires', 'Age'];

/** A response that does not come from the cache keeps the headers that were set before the handler. */
function restore(c: Context, own: Headers): void {
  for (const name of SAID_BY_HANDLER) {
    const before = own.get(name);
    if (before === null) continue;
    if (name === 'Vary') c.res.headers.append(name, before);
    else if (!c.res.headers.has(name)) c.res.headers.set(name, before);
  }
}

/** The handler's response is an error: the waiting requests get it, and it is not cached. */
class HandlerFailed extends Error {
  override readonly name = 'HandlerFailed';
  readonly status: number;

  constructor(status: number) {
    super(`the handler responded with ${status}`);
    this.status = status;
  }
}

/**
 * Caches whole responses to GET, which HEAD shares: status 200, JSON or text, without cookies. Adds `ETag` (and responds with
 * 304), `Cache-Control`, `Age`, `Vary` and `Cache-Status` (RFC 9211). In a guard its entry is read in the pipeline of the other
 * checks, and they decide before it is served. Handlers have the cache loader's deadline.
 *
 * Each distinct query string has its own entry, as it was sent: another order or another escape is another entry. The headers of
 * the handler's response count (RFC 9111): with `no-store`, `no-cache`, `Set-Cookie`, or a `Vary` header that `vary` does
 * not cover, it is not stored, with `private` not when `shared`; `s-maxage`, `max-age` and `Expires` can end an entry before its
 * TTL, and then it is not served stale. docs/cached-responses.md has the rules, and those that are left out on purpose.
 *
 * Only `Authorization` and `Cookie` count as credentials: a route whose responses depend on another header (an API key, a tenant)
 * needs that header in `vary`.
 *
 * The request that got a stale response runs its handler once more to refresh the entry, after the response has left the app.
 * `createApp()` provides for that; in an app of your own, wrap `fetch` in `notifyingAfterResponse`. Without it, middlewares
 * outside `services()` must not await anything after their `next()` on routes with `staleSeconds` or a TTL: the refresh would
 * replace the response that they work on.
 *
 * @example
 * app.get('/catalogue', guard(rateLimiter(policy.api), cached({ ttlSeconds: 300, shared: true, tags: ['catalogue'] })),
 *   async (c) => c.json(await loadCatalogue()));
 */
export function cached(options: CachedOptions): Check {
  const { ttlSeconds, staleSeconds = 0, staleIfErrorSeconds = 0, namespace = 'http', tags = [] } = options;
  const { shared = false, vary = [], headers = [], clientSeconds = 0, maxBytes = 262_144, lease = false } = options;
  const { withinSeconds = 0 } = options;
  if (!(ttlSeconds > 0)) throw new RangeError('cached(): ttlSeconds must be positive');
  if (!(withinSeconds >= 0 && withinSeconds <= 60))
    throw new RangeError('cached(): withinSeconds must be from 0 to 60');
  const lower = (names: readonly string[]) => names.map((name) => name.toLowerCase()).sort();
  const rules: StoreRules = { maxBytes, vary: lower(vary), headers: lower(headers), shared };

  /** `undefined`: not to be cached. */
  function queryOf(c: Context<AppEnv>): QueryOptions<CachedResponse> | undefined {
    if (c.req.method !== 'GET' && c.req.method !== 'HEAD') return undefined;
    const auth = shared ? undefined : authOf(c);
    // The response may be for these credentials alone.
    const credentials = c.req.header('Authorization') ?? c.req.header('Cookie');
    if (!shared && auth === undefined && credentials !== undefined) return undefined;
    const negotiated = rules.vary.map((name) => c.req.header(name));
    return {
      namespace,
      // GET and HEAD share an entry. The URL counts as it was sent: a handler may distinguish `%ff` from `%fe`, and one
      // order from another; a decoded list does not.
      args: ['GET', c.req.url, negotiated, auth?.role],
      user: auth?.userId,
      tags: typeof tags === 'function' ? tags(c) : tags,
      ttlSeconds,
      staleSeconds,
      staleIfErrorSeconds,
      schema: reusableAt(c.get('request').now()),
      lease,
      withinSeconds,
    };
  }

  return check({
    name: 'cached()',
    prepare(c, withinMs) {
      const query = queryOf(c);
      if (query === undefined) return undefined;
      const key = CacheService.keyOf(query);
      const ownMs = withinSeconds * 1_000;
      const rely = ownMs > 0 ? CacheService.recall([key], ownMs) : undefined;
      if (rely === undefined) CacheService.prefetch(key, Math.max(withinMs, ownMs));
      else rely();
      return undefined;
    },
    recall(c, withinMs) {
      const query = queryOf(c);
      return query === undefined ? () => undefined : CacheService.recall([CacheService.keyOf(query)], withinMs);
    },

    async around(c, next) {
      const query = queryOf(c);
      // The guard's Cache-Status becomes a detail of this cache's own.
      const detail = c.res.headers.get('Cache-Status') === FROM_MEMORY ? MEMORY : '';
      if (detail !== '') c.res.headers.delete('Cache-Status');
      if (query === undefined) {
        await next();
        note(c, `fwd=bypass${detail}`);
        return;
      }
      // Headers that are set already (rate limits, CORS) belong to this request.
      const own = new Headers(c.res.headers);
      // The handler's own headers must be distinguishable from those set before it.
      for (const name of SAID_BY_HANDLER) c.res.headers.delete(name);
      const { promise: responded, resolve: notify } = Promise.withResolvers<void>();
      if (!afterResponse(c.req.raw, notify)) {
        // Middlewares around this one set their headers in the same turn in which the response is made.
        c.get('request').onResponse.push(() => setTimeout(notify, 0));
      }

      let led = false;
      const load = async ({ refresh, signal }: LoaderContext): Promise<CachedResponse | null> => {
        if (refresh) {
          await responded;
          signal.throwIfAborted();
          // The handler runs only to fill the cache: this response goes to no client.
          c.res = undefined;
          c.finalized = false;
        } else led = true;
        await nextAsGet(c, next);
        if (c.res.status >= 500) throw new HandlerFailed(c.res.status);
        return (await cacheableFrom(c.res, rules, c.get('request').now())) ?? null;
      };

      let result: CacheResult<CachedResponse>;
      try {
        result = await CacheService.result(query, load);
      } catch (error) {
        if (!(error instanceof HandlerFailed)) throw error;
        // The handler of another request has failed; this request's own may succeed.
        if (!led) await next();
        restore(c, own);
        note(c, `fwd=miss${detail}`);
        return;
      }
      if (result.value === null) {
        // The response must not be shared, so each request runs its own handler.
        if (!led) await next();
        restore(c, own);
        note(c, `${result.from === 'bypass' ? 'fwd=bypass' : 'fwd=miss'}${detail}`);
        return;
      }
      respond(c, result as CacheResult<CachedResponse> & { value: CachedResponse }, own);
    },
  });

  function respond(
    c: Context<AppEnv>,
    { value: { headers: kept, body, etag }, ...how }: CacheResult<CachedResponse> & { value: CachedResponse },
    own: Headers,
  ): void {
    const control = `${shared ? 'public' : 'private'}, ${clientSeconds > 0 ? `max-age=${clientSeconds}` : 'no-cache'}`;
    const answer = new Headers({ 'cache-control': own.get('Cache-Control') ?? control, ...kept, etag });
    for (const [name, value] of own) {
      const isSet = name === 'content-type' || name === 'cache-control' || Object.hasOwn(kept, name);
      if (!isSet) answer.append(name, value);
    }
    for (const name of shared ? vary : [...vary, 'Authorization']) answer.append('Vary', name);
    const nowMs = c.get('request').now();
    const ageSeconds = Math.max(0, Math.floor((nowMs - how.createdAtMs) / 1_000));
    answer.set('Age', String(ageSeconds));
    const unchanged = matches(c.req.header('If-None-Match'), etag);
    if (unchanged) answer.delete('content-type');
    c.res = undefined;
    c.res = unchanged ? new Response(null, { status: 304, headers: answer }) : new Response(body, { headers: answer });
    // The cached value replaces the failed response.
    if (how.from === 'fallback') c.error = undefined;
    note(c, statusOf(how, Math.floor((how.freshUntilMs - nowMs) / 1_000)));
  }
}

/** Runs the handler as for a GET: for HEAD a handler may leave out the body, but GET is served the same entry. */
async function nextAsGet(c: Context, next: Next): Promise<void> {
  const { raw } = c.req;
  if (raw.method !== 'HEAD') return next();
  c.req.raw = new Request(raw, { method: 'GET' });
  try {
    await next();
  } finally {
    c.req.raw = raw;
  }
}

/** RFC 9211, section 2. A stale response's time to live is negative. */
function statusOf({ from, expired, remembered }: Omit<CacheResult<unknown>, 'value'>, ttl: number): string {
  switch (from) {
    case 'hit':
      return `hit; ttl=${ttl}${remembered === true ? MEMORY : ''}`;
    case 'stale':
      return `hit; ttl=${ttl}`;
    case 'fallback':
      return `hit; ttl=${ttl}; detail=stale-if-error`;
    case 'bypass':
      return 'fwd=bypass';
    case 'joined':
      return `fwd=${expired ? 'stale' : 'miss'}; collapsed`;
    case 'loaded':
      return `fwd=${expired ? 'stale' : 'miss'}; stored`;
  }
}

function note(c: Context<AppEnv>, status: string): void {
  c.res.headers.append('Cache-Status', `Gatehouse; ${status}`);
}
