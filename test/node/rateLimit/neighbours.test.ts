import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { startGateway } from '../../../src/gateway/gateway.ts';
import type { Gateway } from '../../../src/gateway/gateway.ts';
import { startApp } from '../../support/app.ts';
import type { RunningApp } from '../../support/app.ts';
import { testBindings } from '../../support/bindings.ts';
import { clientOf } from '../../support/client.ts';
import { REDIS_MISSING, hasRedisServer, startCluster, startRedis } from '../../support/redisServers.ts';

const TOKEN = 'neighbours-token';
const NAT = '203.0.113.44';
const PASSWORD = 'correct horse battery';

/**
 * Limits of one guard whose keys are on different slots of a cluster: logins count by account and address, and by address
 * alone.
 */
describe.skipIf(!hasRedisServer).each([
  ['Redis', startRedis],
  ['Redis Cluster with three masters', startCluster],
] as const)(`on %s${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`, (_, startServer) => {
  let server: { url: string; stop(): Promise<void> };
  let gateway: Gateway;
  let app: RunningApp;

  beforeAll(async () => {
    server = await startServer();
    gateway = await startGateway({ token: TOKEN, port: 0, redisUrl: server.url });
    const redis = { url: gateway.url, token: TOKEN };
    app = await startApp({
      bundle: inject('workerBundle'),
      redis,
      isolates: 2,
      settings: {
        ...testBindings(redis),
        LIMIT_LOGIN: '5/15m',
        LIMIT_LOGIN_ADDRESS: '50/15m',
        LIMIT_REGISTER: '100/1m',
        LIMIT_REGISTER_DAY: '100/1m',
        // A busy machine must not make an isolate decide by itself.
        REDIS_GUARD_DEADLINE_MS: '10000',
        REDIS_AUTH_DEADLINE_MS: '10000',
        REDIS_CALL_TIMEOUT_MS: '20000',
        KEY_PREFIX: `t${randomUUID().slice(0, 8)}`,
      },
    });
  }, 90_000);

  afterAll(async () => {
    await app?.[Symbol.asyncDispose]();
    await gateway?.close();
    await server?.stop();
  });

  test('60 logins on one account at once leave its neighbours behind the same address alone', async () => {
    const [here, there] = app.urls.map((url) => clientOf(url, NAT)) as [
      ReturnType<typeof clientOf>,
      ReturnType<typeof clientOf>,
    ];
    const neighbour = { email: 'neighbour@example.com', password: PASSWORD };
    expect((await here('POST', '/v1/auth/register', { body: { ...neighbour, name: 'Neighbour' } })).status).toBe(201);
    const login = (call: typeof here, body: object) => call('POST', '/v1/auth/login', { body });
    const guess = { email: 'attacked@example.com', password: 'not the password' };
    // Each isolate knows the topology.
    for (const call of [here, there]) expect((await login(call, neighbour)).status).toBe(200);

    const burst = Array.from({ length: 60 }, (_unused, index) => login(index % 2 === 0 ? here : there, guess));
    const meanwhile = await login(there, neighbour);
    const statuses = (await Promise.all(burst)).map(({ status }) => status);
    expect(meanwhile.status).toBe(200);
    expect(statuses.filter((status) => status === 401)).toHaveLength(5);
    expect(statuses.filter((status) => status === 429)).toHaveLength(55);
    const after = await login(here, neighbour);
    expect(after.status).toBe(200);
    // Eight logins were admitted, the neighbour's three and the five, and this one.
    expect(after.headers.get('RateLimit')).toContain('"login-address";r=41;');
    expect(after.headers.get('Gatehouse-Degraded')).toBeNull();
  });
});

test.skipIf(!hasRedisServer)(
  'a server that forbids TIME in scripts is counted on by the isolates’ clocks',
  async () => {
    const server = await startRedis();
    await using gateway = await startGateway({ token: TOKEN, port: 0, redisUrl: server.url });
    try {
      await server.command('ACL', 'SETUSER', 'default', '-time');
      const redis = { url: gateway.url, token: TOKEN };
      const settings = { ...testBindings(redis), LIMIT_API: '3/1h', REDIS_GUARD_DEADLINE_MS: '10000' };
      await using app = await startApp({ bundle: inject('workerBundle'), redis, settings });
      const call = clientOf(app.url, NAT);
      const answers = [];
      for (let i = 0; i < 5; i += 1) answers.push(await call('GET', '/v1/users/me'));
      expect(answers.map(({ status }) => status)).toEqual([401, 401, 401, 429, 429]);
      expect(answers.map(({ headers }) => headers.get('Gatehouse-Degraded'))).toEqual(
        Array.from({ length: 5 }, () => null),
      );
    } finally {
      await server.stop();
    }
  },
);
