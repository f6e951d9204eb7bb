import { AsyncLocalStorage } from 'node:async_hooks';
import { Hono } from 'hono';
import { contextStorage } from 'hono/context-storage';

/**
 * The runtime alone: which objects in an AsyncLocalStorage's store keep the store alive for ever. See
 * docs/decisions/request-scope.md.
 */
interface Store {
  ballast: Uint8Array | number[];
  held?: unknown;
}

const storage = new AsyncLocalStorage<unknown>();

/** 8 KB on the JavaScript heap. */
const storeOf = (): Store => ({ ballast: Array.from({ length: 1_000 }, (_, index) => index + 0.5) });

const runs: Record<string, (request: Request) => Promise<Response>> = {
  /** No AsyncLocalStorage. */
  '/none': async () => {
    const store = storeOf();
    store.held = new Response('ok');
    return store.held as Response;
  },
  '/request': (request) => {
    const store = storeOf();
    return storage.run(store, async () => {
      store.held = request;
      return new Response('ok');
    });
  },
  '/response': () => {
    const store = storeOf();
    return storage.run(store, async () => {
      const response = new Response('ok');
      store.held = response;
      return response;
    });
  },
  '/response-of-before': () => {
    const response = new Response('ok');
    const store = { ...storeOf(), held: response };
    return storage.run(store, async () => response);
  },
  '/promise-settled': () => {
    const store = storeOf();
    return storage.run(store, async () => {
      store.held = Promise.resolve();
      await (store.held as Promise<void>);
      return new Response('ok');
    });
  },
  '/promise-never-settles': () => {
    const store = storeOf();
    return storage.run(store, async () => {
      const never = new Promise<void>((_, reject) => {
        store.held = reject;
      });
      await Promise.race([never, scheduler.wait(1)]);
      return new Response('ok');
    });
  },
  /** A handle that is emptied at the end. */
  '/emptied': () => {
    const handle: { store: Store | undefined } = { store: storeOf() };
    return storage.run(handle, async () => {
      const response = new Response('ok');
      handle.store!.held = response;
      handle.store = undefined;
      return response;
    });
  },
  /** A handle that refers weakly, and is never emptied. */
  '/weak': () => {
    const store = storeOf();
    return storage.run(new WeakRef(store), async () => {
      const response = new Response('ok');
      store.held = response;
      return response;
    });
  },
};

const withContextStorage = new Hono().use(contextStorage()).get('*', (c) => {
  c.set('ballast' as never, storeOf() as never);
  return c.text('ok');
});
const withoutContextStorage = new Hono().get('*', (c) => {
  c.set('ballast' as never, storeOf() as never);
  return c.text('ok');
});

export default {
  async fetch(request, env, context) {
    const { pathname } = new URL(request.url);
    if (pathname === '/hono') return withoutContextStorage.fetch(request, env, context);
    if (pathname === '/hono-context-storage') return withContextStorage.fetch(request, env, context);
    return (await runs[pathname]?.(request)) ?? new Response('unknown', { status: 404 });
  },
} satisfies ExportedHandler;
