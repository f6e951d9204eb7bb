import { configOf } from '../../../src/config/env';
import { createRedisClient } from '../../../src/redis/client';
import type { Command, RedisClient, Reply } from '../../../src/redis/client';
import { RedisUnavailable } from '../../../src/redis/errors';
import type { CacheService, QueryOptions } from '../../../src/services/cache.service';
import type { RequestScope } from '../../../src/services/scope';
import { bindings, inRequest, isolateFor } from './request';

let n = 0;

/** A namespace that nothing else has used. */
export const freshNamespace = (): string => `ns${(n += 1)}.${Math.random().toString(36).slice(2)}`;

/** A promise, and what resolves it. */
export function gate() {
  const { promise: opened, resolve: open } = Promise.withResolvers<void>();
  return { open, opened };
}

/** The real client, with a record of what it sent, which may be held up or made to fail. */
export function observedClient() {
  const { url, token } = configOf(bindings()).redis;
  const real = createRedisClient({ url, token });
  const state = {
    sent: [] as (readonly Command[])[],
    down: false,
    /** Awaited before a pipeline leaves. */
    before: undefined as ((commands: readonly Command[]) => Promise<void> | undefined) | undefined,
    /** Changes what Redis has answered. */
    rewrite: undefined as ((replies: Reply[]) => Reply[]) | undefined,
  };
  const client: RedisClient = {
    async execute(commands) {
      state.sent.push(commands);
      if (state.down) throw new RedisUnavailable('refused');
      await state.before?.(commands);
      const replies = await real.execute(commands);
      return state.rewrite?.(replies) ?? replies;
    },
  };
  return { client, state };
}

export interface Scene {
  /** Milliseconds since the epoch, as the app sees them. */
  clock: { ms: number };
  /** What `random()` gives. */
  chance: { value: number };
  state: ReturnType<typeof observedClient>['state'];
  isolate: ReturnType<typeof isolateFor>;
  /** Another isolate with the same Redis, clock and settings. */
  elsewhere: ReturnType<typeof isolateFor>;
  /** One that has just begun, likewise. */
  newcomer(): ReturnType<typeof isolateFor>;
  run<T>(fn: (request: RequestScope) => Promise<T>, where?: ReturnType<typeof isolateFor>, db?: D1Database): Promise<T>;
  /** In a request of its own. */
  query<T>(options: QueryOptions<T>, loader: Parameters<typeof CacheService.query<T>>[1]): Promise<T | null>;
}

/** An isolate whose clock, chance and Redis the test holds in its hands. */
export function cacheScene(settings: Record<string, unknown> = {}): Scene {
  // Keys of its own: a flush takes nothing from other tests.
  const bound = bindings({ KEY_PREFIX: freshNamespace().replace('.', '-'), ...settings });
  const clock = { ms: Date.now() };
  const chance = { value: 0 };
  const { client, state } = observedClient();
  const now = () => clock.ms;
  const isolate = isolateFor(bound, { client });
  const scene: Scene = {
    clock,
    chance,
    state,
    isolate,
    elsewhere: isolateFor(bound),
    newcomer: () => isolateFor(bound),
    run: (fn, where = isolate, db = bound.DB) => inRequest(fn, { isolate: where, db, now, random: () => chance.value }),
    query: (options, loader) => scene.run(({ services }) => services.cache.query(options, loader)),
  };
  return scene;
}
