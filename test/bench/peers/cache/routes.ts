import type { Context, Hono } from 'hono';

/** The bindings of every peer. */
export interface Bindings {
  UPSTASH_REDIS_REST_URL: string;
  UPSTASH_REDIS_REST_TOKEN: string;
  PREFIX: string;
}

/** The cached value: its key, a version that distinguishes an old value from a new one, and some content. */
export interface Value {
  key: string;
  version: string;
  text: string;
}

/** One entry asked for, and where it comes from when the cache does not have it. */
export interface Lookup {
  key: string;
  load: () => Promise<Value>;
  waitUntil: (promise: Promise<unknown>) => void;
}

/** What a cache is asked. What it has no way to do, it leaves out. */
export interface Contender {
  read: (lookup: Lookup) => Promise<Value>;
  /** Fresh for {@link STALE_AFTER_SECONDS}, and served for {@link STALE_FOR_SECONDS} more while it is made anew. */
  readStale?: (lookup: Lookup) => Promise<Value>;
  readTagged?: (lookup: Lookup, tags: string[]) => Promise<Value>;
  readMany: (lookups: Lookup[]) => Promise<Value[]>;
  forget: (key: string) => Promise<unknown>;
  invalidateTag?: (tag: string) => Promise<unknown>;
}

export const TTL_SECONDS = 3_600;
export const STALE_AFTER_SECONDS = 1;
export const STALE_FOR_SECONDS = 600;
const MANY = 10;
/** Long enough for another request to come in between. */
const SLOW_MS = 400;

const TEXT = 'x'.repeat(200);
let isolate: string | undefined;
let loads = 0;

// oxlint-disable-next-line typescript/require-await -- loaders are asynchronous, and this one has nothing to wait for
async function load(key: string): Promise<Value> {
  isolate ??= crypto.randomUUID().slice(0, 8);
  loads += 1;
  return { key, version: `${isolate}-${loads}`, text: TEXT };
}

async function loadSlowly(key: string): Promise<Value> {
  const value = await load(key);
  await new Promise((resolve) => {
    setTimeout(resolve, SLOW_MS);
  });
  return value;
}

/** The same routes for every cache. What it has no way to do is a 404. */
export function addRoutes<E extends { Bindings: object }>(
  app: Hono<E>,
  contenderOf: (env: E['Bindings']) => Contender,
): void {
  const lookup = (c: Context<E>, key: string, loader = load): Lookup => ({
    key,
    load: () => loader(key),
    waitUntil: (promise) => c.executionCtx.waitUntil(promise),
  });

  app.get('/read/:key', async (c) => c.json(await contenderOf(c.env).read(lookup(c, c.req.param('key')))));

  app.get('/slow/:key', async (c) => c.json(await contenderOf(c.env).read(lookup(c, c.req.param('key'), loadSlowly))));

  app.get('/stale/:key', async (c) => {
    const contender = contenderOf(c.env);
    if (contender.readStale === undefined) return c.notFound();
    return c.json(await contender.readStale(lookup(c, c.req.param('key'))));
  });

  app.get('/tagged/:tags/:key', async (c) => {
    const contender = contenderOf(c.env);
    if (contender.readTagged === undefined) return c.notFound();
    return c.json(await contender.readTagged(lookup(c, c.req.param('key')), c.req.param('tags').split(',')));
  });

  app.get('/many/:group', async (c) => {
    const keys = Array.from({ length: MANY }, (_, index) => `${c.req.param('group')}-${index}`);
    return c.json(await contenderOf(c.env).readMany(keys.map((key) => lookup(c, key))));
  });

  app.get('/fill/:tag/:from/:count', async (c) => {
    const { readTagged } = contenderOf(c.env);
    if (readTagged === undefined) return c.notFound();
    const [from, count] = [Number(c.req.param('from')), Number(c.req.param('count'))];
    const tag = c.req.param('tag');
    const keys = Array.from({ length: count }, (_, index) => `${tag}-${from + index}`);
    await Promise.all(keys.map((key) => readTagged(lookup(c, key), [tag])));
    return c.text('filled');
  });

  app.get('/forget/:key', async (c) => {
    await contenderOf(c.env).forget(c.req.param('key'));
    return c.text('forgotten');
  });

  app.get('/invalidate/:tag', async (c) => {
    const contender = contenderOf(c.env);
    if (contender.invalidateTag === undefined) return c.notFound();
    await contender.invalidateTag(c.req.param('tag'));
    return c.text('invalidated');
  });
}

/** One an isolate. */
export function oncePerIsolate<B extends object>(make: (env: B) => Contender): (env: B) => Contender {
  let made: Contender | undefined;
  return (env) => (made ??= make(env));
}
