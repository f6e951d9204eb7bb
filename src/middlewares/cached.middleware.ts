import type { Context } from 'hono';

import { CacheService } from '../services/cache.service';
import type { CacheResult, LoaderContext, QueryOptions } from '../services/cache.service';
import { onceAnswered } from './answered';
import { authOf } from './auth.middleware';
import type { AuthVariables } from './auth.middleware';
import { matches, reusableAt, storedFrom } from './cachedResponse';
import type { StoredResponse } from './cachedResponse';
import { check } from './check';
import type { Check } from './check';
import type { AppEnv } from './services.middleware';
import type { StoreRules } from './storable';

type Ctx = Context<{ Bindings: AppEnv['Bindings']; Variables: AppEnv['Variables'] & Partial<AuthVariables> }>;

/** Options of {@link cached}. */
export interface CachedOptions {
  /** How long an answer is fresh, for everybody: an invalidation ends it at once. */
  ttlSeconds: number;
  /** After that it is still answered at once, and refreshed behind the answer. @default 0 */
  staleSeconds?: number;
  /** After its TTL it is answered when the handler fails (a status from 500 on). @default 0 */
  staleIfErrorSeconds?: number;
  /** What `CacheService.invalidate({ namespaces })` ends. @default 'http' */
  namespace?: string;
  /** What else ends it. A user's own answers also end with `invalidate({ users })`. */
  tags?: readonly string[] | ((c: Ctx) => readonly string[]);
  /**
   * One answer for all callers. By default each authenticated user has answers of their own, and a request with
   * credentials that `authenticate()` has not checked is not cached at all. @default false
   */
  shared?: boolean;
  /** Request headers that the answer depends on, also those that tell who asks. @default [] */
  vary?: readonly string[];
  /**
   * How long a client may use its copy without asking, counted from when the answer was made: an invalidation does not
   * reach it there. 0: it asks each time, and is mostly told 304. @default 0
   */
  clientSeconds?: number;
  /** Headers of the handler's that are kept beside those that describe the body. @default [] */
  headers?: readonly string[];
  /** Longer bodies are answered, but not cached. @default 262_144 */
  maxBytes?: number;
  /** One load among all isolates; see `CacheService.query`. @default false */
  lease?: boolean;
}

const SAID_BY_HANDLER = ['Vary', 'Cache-Control', 'Expires', 'Age'];

/** An answer that is not the cache's has what stood in its head before the handler, too. */
function restore(c: Context, own: Headers): void {
  for (const name of SAID_BY_HANDLER) {
    const before = own.get(name);
    if (before === null) continue;
    if (name === 'Vary') c.res.headers.append(name, before);
    else if (!c.res.headers.has(name)) c.res.headers.set(name, before);
  }
}

/** The handler answered with an error of its own: an answer for those who asked, and no answer to cache. */
class HandlerFailed extends Error {
  override readonly name = 'HandlerFailed';
  readonly status: number;

  constructor(status: number) {
    super(`the handler answered ${status}`);
    this.status = status;
  }
}

/**
 * Caches whole answers to GET: status 200, JSON or text, without cookies. Adds `ETag` (and answers 304), `Cache-Control`,
 * `Age`, `Vary` and `Cache-Status` (RFC 9211). In a guard its entry travels with what the other checks ask Redis, and they
 * decide before it is answered. Handlers have the cache loader's deadline.
 *
 * Each distinct query string is an entry of its own, as it was sent: another order or another escape is another one. What a
 * handler says of its answer counts (RFC 9111): with `no-store`, `no-cache`, `Set-Cookie`, or a `Vary` by what `vary` does not
 * name it is not stored, with `private` not when `shared`; `s-maxage`, `max-age` and `Expires` end an entry before its TTL,
 * and then it is not served stale. docs/cached-responses.md has the rules, and those that are left out on purpose.
 *
 *  Credentials are `Authorization` and `Cookie`, and nothing else: a
 * route whose answers depend on another header (an API key, a tenant) needs that header in `vary`.
 *
 * A stale answer is refreshed by its own request's handler, once the answer has left the app. `createApp()` knows when; an
 * app of your own does with `tellingAnswered`. Without that, what stands outside `services()` must not await anything
 * after its `next()` on routes with `staleSeconds` or a TTL: the refresh would take the answer from under it.
 *
 * @example
 * app.get('/catalogue', guard(rateLimiter(policy.api), cached({ ttlSeconds: 300, shared: true, tags: ['catalogue'] })),
 *   async (c) => c.json(await loadCatalogue()));
 */
export function cached(options: CachedOptions): Check {
  const { ttlSeconds, staleSeconds = 0, staleIfErrorSeconds = 0, namespace = 'http', tags = [] } = options;
  const { shared = false, vary = [], headers = [], clientSeconds = 0, maxBytes = 262_144, lease = false } = options;
  if (!(ttlSeconds > 0)) throw new RangeError('cached(): ttlSeconds must be positive');
  const lower = (names: readonly string[]) => names.map((name) => name.toLowerCase()).sort();
  const rules: StoreRules = { maxBytes, vary: lower(vary), headers: lower(headers), shared };

  /** `undefined`: not to be cached. */
  function queryOf(c: Context<AppEnv>): QueryOptions<StoredResponse> | undefined {
    if (c.req.method !== 'GET' && c.req.method !== 'HEAD') return undefined;
    const auth = shared ? undefined : authOf(c);
    // Whoever these are of, the answer may be theirs alone.
    const credentials = c.req.header('Authorization') ?? c.req.header('Cookie');
    if (!shared && auth === undefined && credentials !== undefined) return undefined;
    const negotiated = rules.vary.map((name) => c.req.header(name));
    return {
      namespace,
      // A handler may leave out the body that a HEAD has no use for.
      // As it was sent: a handler may tell `%ff` from `%fe`, and one order from another, where a decoded list does not.
      args: [c.req.method, c.req.url, negotiated, auth?.role],
      user: auth?.userId,
      tags: typeof tags === 'function' ? tags(c) : tags,
      ttlSeconds,
      staleSeconds,
      staleIfErrorSeconds,
      schema: reusableAt(c.get('request').now()),
      lease,
    };
  }

  return check({
    name: 'cached()',
    prepare(c) {
      const query = queryOf(c);
      if (query !== undefined) CacheService.prefetch(CacheService.keyOf(query));
      return undefined;
    },

    async around(c, next) {
      const query = queryOf(c);
      if (query === undefined) {
        await next();
        note(c, 'fwd=bypass');
        return;
      }
      // What stands in the answer's head already (rate limits, CORS) is this request's own.
      const own = new Headers(c.res.headers);
      // What the handler says of its answer must be told from what others have said before it.
      for (const name of SAID_BY_HANDLER) c.res.headers.delete(name);
      const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
      if (!onceAnswered(c.req.raw, answer)) {
        // Who stands around us sets its headers in the same turn that the answer is made in.
        c.get('request').afterResponse.push(() => setTimeout(answer, 0));
      }

      let led = false;
      const load = async ({ refresh, signal }: LoaderContext): Promise<StoredResponse | null> => {
        if (refresh) {
          await answered;
          signal.throwIfAborted();
          // The handler runs for its answer alone: nobody gets this one.
          c.res = undefined;
          c.finalized = false;
        } else led = true;
        await next();
        if (c.res.status >= 500) throw new HandlerFailed(c.res.status);
        return (await storedFrom(c.res, rules, c.get('request').now())) ?? null;
      };

      let result: CacheResult<StoredResponse>;
      try {
        result = await CacheService.result(query, load);
      } catch (error) {
        if (!(error instanceof HandlerFailed)) throw error;
        // Another request's handler has failed: this one's may do better.
        if (!led) await next();
        restore(c, own);
        note(c, 'fwd=miss');
        return;
      }
      if (result.value === null) {
        // An answer that is not to be shared: everybody has their own made.
        if (!led) await next();
        restore(c, own);
        note(c, result.from === 'bypass' ? 'fwd=bypass' : 'fwd=miss');
        return;
      }
      respond(c, result as CacheResult<StoredResponse> & { value: StoredResponse }, own);
    },
  });

  function respond(
    c: Context<AppEnv>,
    { value: { headers: kept, body, etag }, ...how }: CacheResult<StoredResponse> & { value: StoredResponse },
    own: Headers,
  ): void {
    const control = `${shared ? 'public' : 'private'}, ${clientSeconds > 0 ? `max-age=${clientSeconds}` : 'no-cache'}`;
    const answer = new Headers({ 'cache-control': own.get('Cache-Control') ?? control, ...kept, etag });
    for (const [name, value] of own) {
      const told = name === 'content-type' || name === 'cache-control' || Object.hasOwn(kept, name);
      if (!told) answer.append(name, value);
    }
    for (const name of shared ? vary : [...vary, 'Authorization']) answer.append('Vary', name);
    const nowMs = c.get('request').now();
    const ageSeconds = Math.max(0, Math.floor((nowMs - how.createdAtMs) / 1_000));
    answer.set('Age', String(ageSeconds));
    const unchanged = matches(c.req.header('If-None-Match'), etag);
    if (unchanged) answer.delete('content-type');
    c.res = undefined;
    c.res = unchanged ? new Response(null, { status: 304, headers: answer }) : new Response(body, { headers: answer });
    // What has failed has been made up for.
    if (how.from === 'fallback') c.error = undefined;
    note(c, statusOf(how, Math.floor((how.freshUntilMs - nowMs) / 1_000)));
  }
}

/** RFC 9211, section 2. A stale answer's time to live is negative. */
function statusOf({ from, expired }: Omit<CacheResult<unknown>, 'value'>, ttl: number): string {
  switch (from) {
    case 'hit':
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
