import { stream } from 'hono/streaming';

import { createApp } from '../../../../src/app';
import { cached } from '../../../../src/middlewares/cached.middleware';
import { guard } from '../../../../src/middlewares/guard.middleware';
import { rateLimiter } from '../../../../src/middlewares/rateLimiter.middleware';
import { scheduled } from '../../../../src/scheduled';
import { CacheService } from '../../../../src/services/cache.service';
import { LockService } from '../../../../src/services/lock.service';
import { RedisService } from '../../../../src/services/redis.service';
import { sleep } from '../../../../src/util/retry';

/** As large as a small record. */
const value = (key: string) => ({ key, text: 'x'.repeat(200) });
const namespace = 'memory';
const HOUR = 3_600;
const AT_ONCE = 0.001;

/** The app, and routes for what its own do not do. */
const app = createApp();

app.get('/bench/limited', guard(rateLimiter({ windowMs: HOUR * 1_000, maxRequests: 1 })), (c) => c.json(value('')));

/** 64 KB, found by this function's name in a heap profile. */
function ballast(): number[] {
  return Array.from({ length: 8_000 }, () => 0.5);
}
app.get('/bench/ballast', guard(rateLimiter({ windowMs: HOUR * 1_000, maxRequests: 1_000_000 })), (c) => {
  const held = ballast();
  c.get('request').onResponse.push(() => void held.length);
  return c.json({});
});

const response = { ttlSeconds: HOUR, shared: true };
app.get('/bench/cached', guard(cached(response)), (c) => c.json(value(c.req.query('n') ?? '')));
app.get('/bench/cached-stale', guard(cached({ ...response, ttlSeconds: AT_ONCE, staleSeconds: HOUR })), (c) =>
  c.json(value('')),
);

app.get('/bench/query/:key', async (c) => {
  const args = c.req.param('key');
  const tags = ['one', 'two', args];
  return c.json(await CacheService.query({ namespace, args, tags, ttlSeconds: HOUR }, async () => value(args)));
});
app.get('/bench/stale', async (c) => {
  const life = { ttlSeconds: AT_ONCE, staleSeconds: HOUR };
  return c.json(await CacheService.query({ namespace, args: 'stale', ...life }, async () => value('')));
});
app.get('/bench/invalidate', async (c) => {
  await CacheService.invalidate({ tags: ['one'] });
  return c.json({});
});
app.get('/bench/lock', async (c) => {
  await using lock = await LockService.acquire(`memory:${c.req.query('n')}`, { leaseMs: 5_000, waitMs: 50 });
  return c.json({ acquired: lock.acquired });
});

/** What goes on after the response, as handlers of an app do it. */
app.get('/bench/wait-until', (c) => {
  c.executionCtx.waitUntil(sleep(5).then(() => RedisService.set('memory', 'waited', 'x', 60)));
  return c.json({});
});
app.get('/bench/waited', async (c) => c.json(await RedisService.get('memory', 'waited')));
/** How the detached promise of the last request to `/bench/detached` ended: plain text, for a later request to read. */
let detached = '';
app.get('/bench/detached', (c) => {
  detached = '';
  void sleep(5)
    .then(() => RedisService.set('memory', 'detached', 'x', 60))
    .then(
      () => (detached = 'written'),
      (error: unknown) => (detached = String(error)),
    );
  // The runtime's own: it lets the promise go on, and the scope does not know of it.
  (Object.getPrototypeOf(c.executionCtx) as typeof c.executionCtx).waitUntil.call(c.executionCtx, sleep(20));
  return c.json({});
});
app.get('/bench/detached-outcome', (c) => c.json(detached));
/** A body that asks Redis after the response was returned. */
app.get('/bench/streamed', (c) => {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (c.req.query('keep') !== undefined) c.executionCtx.waitUntil(promise);
  return stream(c, async (body) => {
    try {
      await sleep(5);
      await RedisService.get('memory', 'nothing');
      await body.write('read');
    } catch (error) {
      await body.write(String(error));
    } finally {
      resolve();
    }
  });
});
app.get('/bench/never', (c) => {
  void new Promise(() => undefined).then(() => c.res);
  return c.json({});
});
app.get('/bench/stream', (c) => {
  const parts = 64;
  let sent = 0;
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      sent += 1;
      await sleep(1);
      controller.enqueue(new Uint8Array(16_384));
      if (sent === parts) controller.close();
    },
  });
  return c.body(stream, 200, { 'Content-Length': String(parts * 16_384) });
});
app.get('/bench/slow', async (c) => {
  await sleep(50);
  return c.json(value(''));
});
app.get('/bench/failing', () => {
  throw new Error('the handler failed');
});

/** Requests, and promises given to `waitUntil`, that have not settled. */
let underWay = 0;

function counted(promise: Promise<unknown>): void {
  underWay += 1;
  const settled = () => void (underWay -= 1);
  promise.then(settled, settled);
}

export default {
  fetch(request, env, context) {
    if (new URL(request.url).pathname === '/bench/under-way') return new Response(String(underWay));
    const waitUntil = context.waitUntil.bind(context);
    context.waitUntil = (promise) => {
      counted(promise);
      waitUntil(promise);
    };
    const response = Promise.resolve(app.fetch(request, env, context));
    counted(response);
    return response;
  },
  scheduled,
} satisfies ExportedHandler<Env>;
