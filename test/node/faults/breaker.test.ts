import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { FAULTS, command } from '../../support/faults.ts';
import type { Fault } from '../../support/faults.ts';
import { degraded, denialOf, isAvailable, startScene, until, untilRecovered } from './scene.ts';
import type { Account, Scene, SignedIn } from './scene.ts';

const PROBE_MS = 250;
const PROBE_MAX_MS = 1_000;
const MIN_CALLS = 6;
const CALL_TIMEOUT_MS = 1_000;
/** The breaker's jitter is a quarter either way. */
const EARLIEST = 0.75;

let scene: Scene;
let user: Account & SignedIn;

beforeAll(async () => {
  scene = await startScene({
    REDIS_CALL_TIMEOUT_MS: String(CALL_TIMEOUT_MS),
    BREAKER_WINDOW_MS: '1500',
    BREAKER_MIN_CALLS: String(MIN_CALLS),
    BREAKER_PROBE_MS: String(PROBE_MS),
    BREAKER_PROBE_MAX_MS: String(PROBE_MAX_MS),
  });
  user = await scene.newAccount();
  await me();
});
afterAll(() => scene[Symbol.asyncDispose]());
afterEach(async () => {
  scene.redis.reset();
  await scene.redis.clear();
  await untilRecovered(scene, user.access);
  // Until then the next outage's first probe would come as late as this one's last.
  for (let call = 0; call < MIN_CALLS; call += 1) await me();
});

const me = (token = user.access) => scene.call('GET', '/v1/users/me', { token });

/** Breaks Redis and goes on until the breaker has noticed. */
async function opened(fault: Fault = FAULTS['status 500']): Promise<void> {
  const { call, redis } = scene;
  redis.mode = fault;
  await until('the breaker opens', async () => {
    await me();
    return !(await isAvailable(call));
  });
}

const isProbe = (commands: readonly (readonly unknown[])[]) =>
  commands.length === 1 && String(commands[0]?.[0]).toUpperCase() === 'PING';

describe('the breaker', () => {
  it('opens after enough failures, and /health and /ready show it', async () => {
    const { call, redis } = scene;
    const said = scene.app.logs.length;
    expect((await call('GET', '/ready')).body).toMatchObject({
      status: 'ready',
      dependencies: { redis: { status: 'up', breaker: 'closed' }, database: { status: 'up' } },
    });
    redis.mode = FAULTS['status 500'];
    // One failure is no outage.
    await me();
    expect(await isAvailable(call)).toBe(true);

    await opened();
    const lines = scene.app.logs.slice(said).filter((line) => line.includes('"redis.unavailable"'));
    expect(lines).toHaveLength(1);
    const ready = await call('GET', '/ready');
    expect(ready).toMatchObject({
      status: 200,
      body: { status: 'degraded', dependencies: { redis: { status: 'down' }, database: { status: 'up' } } },
    });
    expect(['open', 'half-open']).toContain(ready.body.dependencies.redis.breaker);
  });

  it('while open lets no request spend time on Redis: nothing arrives there but probes', async () => {
    const { redis } = scene;
    await opened();
    redis.mode = FAULTS.hanging;
    redis.reset();
    for (let sent = 0; sent < 40; sent += 1) {
      const answer = await me();
      expect(answer).toMatchObject({ status: 200, body: { id: user.id } });
      expect(degraded(answer)).toContain('revocation=d1');
    }
    expect(redis.requests.filter(({ commands }) => !isProbe(commands))).toEqual([]);
  });

  it('asks by one probe at a time, however many requests there are', async () => {
    const { redis } = scene;
    await opened();
    redis.mode = FAULTS.hanging;
    redis.reset();
    const untilMs = performance.now() + 3 * CALL_TIMEOUT_MS;
    const traffic = Array.from({ length: 8 }, async () => {
      while (performance.now() < untilMs) await Promise.all([me(), sleep(20)]);
    });
    await Promise.all(traffic);

    const probes = redis.requests;
    expect(probes.every(({ commands }) => isProbe(commands))).toBe(true);
    expect(probes.length).toBeGreaterThanOrEqual(2);
    for (const [index, { arrivedAtMs }] of probes.entries()) {
      // Each hangs until the client gives it up; the next one comes later.
      const before = probes[index - 1];
      if (before !== undefined) expect(before.endedAtMs ?? Infinity).toBeLessThan(arrivedAtMs + CALL_TIMEOUT_MS / 2);
    }
  });

  it('probes less and less often, up to its longest pause', async () => {
    const { redis } = scene;
    await opened();
    redis.reset();
    await until('four probes', async () => {
      await me();
      return redis.counts.requests >= 4;
    });
    const at = redis.requests.map(({ arrivedAtMs }) => arrivedAtMs);
    const gaps = at.slice(1).map((ms, index) => ms - (at[index] ?? 0));
    // The pauses are 250, 500, 1000 and 1000 ms; jitter shortens none by more than a quarter.
    const least = [2 * PROBE_MS, PROBE_MAX_MS, PROBE_MAX_MS].map((ms) => ms * EARLIEST - 20);
    gaps.forEach((gap, index) => expect(gap).toBeGreaterThan(least[index] ?? 0));
    expect(Math.max(...gaps)).toBeLessThan(PROBE_MAX_MS * 1.25 + 1_500);
  });

  it('delivers missed messages before any request relies on Redis again', async () => {
    const { call, redis } = scene;
    const other = await scene.signIn(user);
    await me(other.access);
    await opened();
    expect((await call('POST', '/v1/auth/logout', { token: other.access })).status).toBe(204);
    expect(await denialOf(scene, other)).toBeNull();

    await redis.clear();
    redis.reset();
    await untilRecovered(scene, user.access);
    expect(await denialOf(scene, other)).not.toBeNull();
    const delivered = redis.requests.findIndex(({ commands }) =>
      commands.some((sent) => /^EVAL/i.test(String(sent[0])) && sent.includes(other.sessionId)),
    );
    const relied = redis.requests.findIndex(({ commands }) => commands.some(command('HMGET', user.id)));
    expect(delivered).toBeGreaterThan(-1);
    expect(relied).toBeGreaterThan(delivered);
  });

  it('stays open when the messages cannot be delivered, though Redis answers a PING', async () => {
    const { call, redis } = scene;
    const other = await scene.signIn(user);
    await opened();
    expect((await call('POST', '/v1/auth/logout', { token: other.access })).status).toBe(204);
    redis.mode = { kind: 'drop-before', when: (sent) => String(sent[0]).toUpperCase() !== 'PING' };
    redis.reset();
    await until('a probe has tried', async () => {
      await me();
      return redis.requests.some(({ commands }) => commands.some((sent) => sent.includes(other.sessionId)));
    });
    await me();
    expect(await isAvailable(call)).toBe(false);
    expect(await me(other.access)).toMatchObject({ status: 401, body: { code: 'TOKEN_REVOKED' } });
  });

  it('does not miss a revocation that is made while a probe delivers', async () => {
    const { call, redis } = scene;
    const first = await scene.signIn(user);
    const second = await scene.signIn(user);
    await opened();
    expect((await call('POST', '/v1/auth/logout', { token: first.access })).status).toBe(204);
    // The probe's delivery takes its time.
    redis.mode = { kind: 'delay', ms: 900, when: (sent) => sent.includes(first.sessionId) };
    redis.reset();
    await until('the probe delivers', async () => {
      await me();
      return redis.requests.some(({ commands }) => commands.some((sent) => sent.includes(first.sessionId)));
    });
    expect((await call('POST', '/v1/auth/logout', { token: second.access })).status).toBe(204);
    await until('Redis knows of both', async () => (await denialOf(scene, second)) !== null);
    expect(await denialOf(scene, first)).not.toBeNull();
  });

  it('stays closed after recovery, though calls of the outage go on failing', async () => {
    const { call, redis } = scene;
    redis.mode = FAULTS.hanging;
    const burst = (size: number) => Promise.all(Array.from({ length: size }, () => me()));
    const first = burst(30);
    // These begin before the first ones have timed out and opened the breaker; what hangs goes on hanging.
    await sleep(CALL_TIMEOUT_MS - 300);
    const second = burst(30);
    await until('all hang', () => redis.requests.filter(({ endedAtMs }) => endedAtMs === undefined).length >= 60);
    redis.mode = { kind: 'none' };
    await until('the first have opened it', async () => !(await isAvailable(call)));
    await Promise.all([first, second]);
    await until('a probe has closed it', () => isAvailable(call));

    const watchedUntilMs = performance.now() + CALL_TIMEOUT_MS + 500;
    while (performance.now() < watchedUntilMs) {
      expect(await isAvailable(call)).toBe(true);
      await sleep(20);
    }
  });

  it('takes a Redis that keeps its configuration to itself for a healthy one', async () => {
    const { call, redis } = scene;
    redis.mode = {
      kind: 'slot',
      error: "NOPERM User default has no permissions to run the 'config|get' command",
      when: command('CONFIG'),
    };
    for (let asked = 0; asked < 20; asked += 1) {
      const { body } = await call('GET', '/ready');
      expect(body).toMatchObject({ status: 'ready', dependencies: { redis: { status: 'up', breaker: 'closed' } } });
    }
    expect(await isAvailable(call)).toBe(true);
  });

  it('opens for a Redis that is out of quota, which says so by a plain error', async () => {
    await opened({ kind: 'slot', error: 'ERR max daily request limit exceeded. Limit: 10000, Usage: 10000.' });
    expect(await me()).toMatchObject({ status: 200 });
  });
});
