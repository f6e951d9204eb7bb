import type { Context } from 'hono';

import { AppError } from '../errors';
import type { ErrorCode } from '../errors';
import { IdempotencyService } from '../services/idempotency.service';
import type { Executed, KeyedExecution, KeyOutcome, StoredResponse } from '../services/idempotency.service';
import { authOf } from './auth.middleware';
import type { AuthVariables } from './auth.middleware';
import { check } from './check';
import type { Check } from './check';
import { parseIdempotencyKey } from './idempotencyKey';
import { isFinal, storedFrom } from './idempotentResponse';
import { PerRequest } from './perRequest';
import { callerIdentity } from './rateLimiter.middleware';
import { decideRepeat, expectRepeat, refusalOf } from './repeats';
import type { AppEnv } from './services.middleware';

type Ctx = Context<{ Bindings: AppEnv['Bindings']; Variables: AppEnv['Variables'] & Partial<AuthVariables> }>;

/**
 * Makes the response of a request that was executed before.
 *
 * @param reference the value that the execution stored for it (`CacheService.change`), `undefined` without one,
 *   `null` once its user was deleted
 */
export type Again = (c: Ctx, reference: unknown) => Response | Promise<Response>;

interface CommonOptions {
  /** Refuses a request without a key. @default false */
  required?: boolean;
  /** How long a key is remembered: a day at the most. @default 86_400 */
  ttlSeconds?: number;
  /** The identity that a key belongs to. @default the authenticated user, else the client's address */
  identity?: (c: Ctx) => string | Promise<string>;
  /** Response headers that are kept beside those that describe the body. @default [] */
  headers?: readonly string[];
  /** Longer bodies are not kept. @default 65_536 */
  maxBytes?: number;
}

/** Options of {@link idempotent}. */
export type IdempotentOptions = CommonOptions &
  (
    | {
        /** Successful responses are stored, encrypted. @default true */
        keep?: true;
        /** Makes a response that was not stored, because it was too long or its isolate ended first. */
        again?: Again;
      }
    | {
        /** Successful responses are never stored, for example because they hold tokens. */
        keep: false;
        again: Again;
      }
  );

/** Methods that change nothing. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS']);
const DAY_SECONDS = 86_400;
/** Time for another request with the same key to finish. */
const RETRY_SECONDS = 1;

interface State {
  key: string;
  caller: string;
  content: readonly (string | Uint8Array)[];
  execution?: KeyedExecution;
  /** The earlier execution, sent in place of the handler's response. */
  executed?: Executed;
  /** Whether this request may execute. */
  first: boolean;
  /** Its claim of the key has been given back, or its response is being stored. */
  isSettled: boolean;
}

/**
 * Executes a request with an `Idempotency-Key` once, however often it arrives: repeats get its response again, with
 * `Idempotency-Replayed: true` (draft-ietf-httpapi-idempotency-key-header). A key belongs to its caller and route (method
 * and path). The same key with another query or body is refused (422), and so is a repeat while the first is being executed
 * (409, with `Retry-After`). After a 5xx, 401, 408, 409, 425 or 429 the client may retry, and the request is executed again.
 *
 * Changes through `CacheService.change` are executed exactly once, even if Redis, the isolate or the response is lost: the row
 * that records the execution is written in the same transaction. Put all statements that belong together into one call. Other
 * effects of a handler (a mail, a payment) happen once as long as Redis or D1 remembers the key.
 *
 * @example
 * app.post('/orders', validJson(orderSchema), guard(rateLimiter(policy.api), authenticate(), idempotent()), async (c) => {
 *   const order = { id: crypto.randomUUID(), userId: c.var.auth.userId, ...c.req.valid('json') };
 *   await CacheService.change({ users: [order.userId] }, (db) => [db.insert(orders).values(order)]);
 *   return c.json(order, 201);
 * });
 */
export function idempotent(options: IdempotentOptions = {}): Check {
  const {
    required = false,
    ttlSeconds = DAY_SECONDS,
    identity = callerIdentity,
    headers = [],
    maxBytes = 65_536,
  } = options;
  const { keep = true, again } = options;
  if (!(ttlSeconds > 0 && ttlSeconds <= DAY_SECONDS))
    throw new RangeError('idempotent(): ttlSeconds must be 1 to 86400');
  const states = new PerRequest<State>();

  async function name(c: Ctx, state: State): Promise<void> {
    const [caller, body] = await Promise.all([identity(c), c.req.arrayBuffer()]);
    state.caller = caller;
    state.content = [new URL(c.req.url).search, new Uint8Array(body)];
  }

  /** @param own headers that were set before the handler, such as rate limits */
  async function replay(c: Ctx, { response, reference }: Executed, own: Headers): Promise<void> {
    c.res = undefined;
    c.res = new Response(null, { headers: own });
    c.res = response === undefined ? await again!(c, reference) : restored(response);
    c.res.headers.set('Idempotency-Replayed', 'true');
  }

  /** @throws {AppError} when the request must not be executed */
  function judge(state: State, outcome: KeyOutcome): void {
    switch (outcome.status) {
      case 'first':
        state.first = true;
        return;
      case 'running':
        throw inUse();
      case 'different':
        throw new AppError('IDEMPOTENCY_KEY_REUSED');
      case 'executed': {
        const { executed } = outcome;
        if (executed.response === undefined && again === undefined) {
          throw executed.recent ? inUse() : new AppError('IDEMPOTENCY_RESPONSE_LOST');
        }
        state.executed = executed;
      }
    }
  }

  /** After the handler: stores its response, or lets the client retry the request. */
  async function settle(c: Ctx, state: State, execution: KeyedExecution): Promise<void> {
    const { status } = c.res;
    const done = execution.executed ? status < 500 : isFinal(status);
    // `end` gives the key back.
    if (!done) return;
    // An error holds no tokens.
    const stored = keep || status >= 400 ? storedFrom(c.res, { headers, maxBytes }) : undefined;
    state.isSettled = true;
    const noted = Promise.resolve(stored).then((response) => execution.finish(response));
    // While Redis cannot hold off a repeat, the database must record the execution before the client gets the response.
    c.get('request').waitUntil(noted);
    if (!execution.executed && !execution.claimed) await noted;
  }

  return check({
    name: 'idempotent()',
    codes: [
      ...(required ? (['IDEMPOTENCY_KEY_REQUIRED'] as const) : []),
      ...(again === undefined ? (['IDEMPOTENCY_RESPONSE_LOST'] as const) : []),
    ] satisfies ErrorCode[],

    local(c) {
      if (SAFE.has(c.req.method)) return;
      const header = c.req.header('Idempotency-Key');
      if (header === undefined) {
        if (required) throw new AppError('IDEMPOTENCY_KEY_REQUIRED');
        return;
      }
      const key = parseIdempotencyKey(header);
      if (key === undefined) throw new AppError('IDEMPOTENCY_KEY_INVALID');
      states.set(c, { key, caller: '', content: [], first: false, isSettled: false });
      expectRepeat(c);
    },

    identify(c) {
      const state = states.get(c);
      return state === undefined ? undefined : name(c, state);
    },

    prepare(c) {
      const state = states.get(c);
      if (state === undefined) return undefined;
      const { key, caller, content } = state;
      const route = `${c.req.method} ${c.req.path}`;
      const userId = authOf(c)?.userId;
      const execution = IdempotencyService.begin({ caller, userId, route, key, content, ttlSeconds });
      state.execution = execution;
      return async () => {
        const refusal = decideRepeat(c);
        judge(state, await execution.decide());
        if (!state.first) return;
        if (refusal !== undefined) throw refusal;
        IdempotencyService.enter(execution);
      };
    },

    uncounted: (c) => refusalOf(c) !== undefined,
    end(c) {
      const state = states.get(c);
      if (state?.execution === undefined || state.isSettled) return;
      state.isSettled = true;
      return state.execution.release();
    },

    async around(c, next) {
      const state = states.get(c);
      const execution = state?.execution;
      if (state === undefined || execution === undefined) return next();
      const own = new Headers(c.res.headers);
      if (state.executed !== undefined) return replay(c, state.executed, own);
      await next();
      // Since the lookup, another request with this key may have been executed, and have made this one fail.
      if (!execution.executed && c.res.status >= 400 && c.res.status !== 503) {
        const outcome = await execution.again();
        if (outcome.status === 'executed') {
          judge(state, outcome);
          c.error = undefined;
          return replay(c, outcome.executed, own);
        }
      }
      await settle(c, state, execution);
    },
  });
}

const inUse = () => new AppError('IDEMPOTENCY_KEY_IN_USE', { headers: { 'Retry-After': String(RETRY_SECONDS) } });

function restored({ status, headers, body }: StoredResponse): Response {
  const isBodiless = status === 204 || status === 205 || status === 304;
  return new Response(isBodiless ? null : new Uint8Array(body), { status, headers });
}
