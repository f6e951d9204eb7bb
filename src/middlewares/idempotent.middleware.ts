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
 * @param reference what the execution has left for it (`CacheService.change`), `undefined` where that is nothing,
 *   `null` once its user was deleted
 */
export type Again = (c: Ctx, reference: unknown) => Response | Promise<Response>;

interface CommonOptions {
  /** Refuses a request without a key. @default false */
  required?: boolean;
  /** How long a key is remembered: a day at the most. @default 86_400 */
  ttlSeconds?: number;
  /** Who has the key to themselves. @default the authenticated user, else the client's address */
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
        /** Makes a response that was not stored: it was too long, or its isolate ended before that. */
        again?: Again;
      }
    | {
        /** Successful responses are never stored, because they hold tokens, say. */
        keep: false;
        again: Again;
      }
  );

/** Methods that change nothing. */
const SAFE = new Set(['GET', 'HEAD', 'OPTIONS']);
const DAY_SECONDS = 86_400;
/** Time for another request with the same key to be done. */
const RETRY_SECONDS = 1;

interface State {
  key: string;
  caller: string;
  content: readonly (string | Uint8Array)[];
  execution?: KeyedExecution;
  /** What is sent in place of the handler's response. */
  executed?: Executed;
  /** Whether this request may execute. */
  first: boolean;
  /** What it claimed has been given back, or its response is being noted. */
  isSettled: boolean;
}

/**
 * Executes a request with an `Idempotency-Key` once, however often it arrives: repeats get its response again, with
 * `Idempotency-Replayed: true` (draft-ietf-httpapi-idempotency-key-header). A key belongs to its caller and route (method
 * and path). The same key with another query or body is refused (422), and so is a repeat while the first is being executed
 * (409, with `Retry-After`). A 5xx, and statuses that ask to come again (401, 408, 409, 425, 429), may be tried again.
 *
 * What the handler changes through `CacheService.change` is executed exactly once, whatever becomes of Redis, the isolate
 * or the response: the row that says so is in the same transaction. Make one call of it with all that belongs together.
 * What a handler does elsewhere (a mail, a payment) is executed once as long as Redis or D1 remembers.
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

  /** @param own what stood in the response's head before the handler, such as rate limits */
  async function replay(c: Ctx, { response, reference }: Executed, own: Headers): Promise<void> {
    c.res = undefined;
    c.res = new Response(null, { headers: own });
    c.res = response === undefined ? await again!(c, reference) : restored(response);
    c.res.headers.set('Idempotency-Replayed', 'true');
  }

  /** @throws {AppError} for what is not to be executed */
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

  /** After the handler: notes its response, or lets the request be tried again. */
  async function settle(c: Ctx, state: State, execution: KeyedExecution): Promise<void> {
    const { status } = c.res;
    const done = execution.executed ? status < 500 : isFinal(status);
    // `end` gives the key back.
    if (!done) return;
    // An error holds no tokens.
    const stored = keep || status >= 400 ? storedFrom(c.res, { headers, maxBytes }) : undefined;
    state.isSettled = true;
    const noted = Promise.resolve(stored).then((response) => execution.finish(response));
    // Where Redis keeps no repeat away, the database must know before the client does.
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
      // Another request may have been executed since this one was looked up, and have made it fail.
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
