import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { slotOf } from '../../../src/gateway/slots.ts';
import type { Answer, Call } from '../../support/client.ts';
import type { WireCommand } from '../../support/faults.ts';
import { REDIS_MISSING, hasRedisServer, startCluster, until } from '../../support/redisServers.ts';
import type { Cluster, RedisProcess } from '../../support/redisServers.ts';
import { REVOKED, eachOf, me, refresh, renewed, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

const PROBE_MS = 100;
const SETTINGS = {
  BREAKER_WINDOW_MS: '5000',
  BREAKER_MIN_CALLS: '10',
  BREAKER_PROBE_MS: String(PROBE_MS),
  BREAKER_PROBE_MAX_MS: '400',
};
/** Its slots, as startCluster() deals them: the third shard, which holds the cache's flush sentinel as well. */
const FIRST = 10_923;
const LAST = 16_383;
const isDead = (key: string) => slotOf(key) >= FIRST && slotOf(key) <= LAST;

interface User {
  held: Held;
  /** Where the limiter counts the user. */
  limitKey: string;
}

describe.skipIf(!hasRedisServer)(
  `a Redis Cluster of which one shard is dead${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`,
  () => {
    let cluster: Cluster;
    let stage: Stage;
    let dead: RedisProcess[];
    /** With every key on the shards that live, and with their own keys on the dead one. */
    let spared: User[];
    let struck: User[];

    beforeAll(async () => {
      cluster = await startCluster();
      stage = await startStage({ redisUrl: cluster.url }, { settings: SETTINGS });
      const people = await stage.people(60, 2);
      const users: User[] = [];
      for (const person of people) users.push(await userOf(person.sessions[0]!));
      spared = users.filter(({ held, limitKey }) => !isDead(`{${held.userId}}`) && !isDead(limitKey)).slice(0, 14);
      struck = users.filter(({ held }) => isDead(`{${held.userId}}`)).slice(0, 10);
      if (spared.length < 6 || struck.length < 6) throw new Error('too few users of one kind');
      await stage.redis.idle();
      dead = [cluster.nodes[2]!, cluster.nodes[5]!];
      if ((await cluster.masterOf(FIRST)) !== dead[0]) throw new Error('another node is the master');
      await Promise.all(dead.map((node) => node.kill()));
    });
    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
      await cluster.stop();
    });

    const limitKeys = async () => new Set((await stage.redis.engine('KEYS', 'stage:ratelimit:*')) as string[]);

    /** Signs in, and finds out under which key the limiter counts. */
    async function userOf(session: Held): Promise<User> {
      const held = await wake(stage.isolates[0], session);
      const before = await limitKeys();
      for (const isolate of stage.isolates) expect((await me(isolate, held)).status).toBe(200);
      const [limitKey, ...others] = [...(await limitKeys())].filter((key) => !before.has(key));
      if (limitKey === undefined || others.length > 0) throw new Error('not one key of the limiter');
      return { held, limitKey };
    }

    const degraded = ({ headers }: Answer) => headers.get('Gatehouse-Degraded') ?? '';
    const both = <T>(work: (isolate: Call) => Promise<T>) => Promise.all(stage.isolates.map(work));

    async function expectClosed(): Promise<void> {
      for (const isolate of stage.isolates) {
        expect((await isolate('GET', '/health')).body).toMatchObject({ redisAvailable: true });
      }
    }

    const health = () => both(async (isolate) => (await isolate('GET', '/health')).body as object);

    test('at first its users alone call, all at once: that is no outage of Redis', async () => {
      for (let round = 0; round < 3; round += 1) {
        await both(async (isolate) => {
          const answers = await Promise.all(struck.map(({ held }) => me(isolate, held)));
          expect(answers.map(({ status }) => status)).toEqual(struck.map(() => 200));
        });
      }
      await stage.redis.idle();
      await expectClosed();
    });

    test('its users are served by D1, other users are not affected, and the breaker stays closed', async () => {
      const { redis, app, isolates } = stage;
      for (let round = 0; round < 20; round += 1) {
        if (round === 10) redis.reset();
        await both(async (isolate) => {
          await eachOf(spared, 8, async ({ held }) => {
            const answer = await me(isolate, held);
            expect({ status: answer.status, degraded: degraded(answer) }).toEqual({ status: 200, degraded: '' });
          });
          await eachOf(struck, 8, async ({ held }) => {
            const answer = await me(isolate, held);
            expect(answer.status).toBe(200);
            expect(degraded(answer)).toContain('revocation=d1');
          });
        });
        await expectClosed();
      }
      const oneShardOut = { redis: 'degraded', redisAvailable: true, redisShardsOut: 1 };
      expect(await health()).toMatchObject([oneShardOut, oneShardOut]);
      // From the tenth round on, nothing but probes was sent to the dead shard.
      const vain = redis.requests.flatMap(({ commands }) => commands).filter(concernsDead);
      expect(vain.filter((command) => !String(command[1]).includes(':probe:'))).toEqual([]);
      expect(app.logs.filter((line) => line.includes('"redis.available"'))).toEqual([]);
      expect(app.logs.filter((line) => line.includes('"redis.probe_failed"'))).toEqual([]);
      expect((await isolates[0]('GET', '/ready')).body).toMatchObject({
        status: 'degraded',
        dependencies: { redis: { status: 'degraded', breaker: 'closed', detail: '1 of its shards cannot serve' } },
      });
    });

    test('isolates that begin while it is dead spare the other users as well', async () => {
      await stage.app.kill();
      for (let round = 0; round < 3; round += 1) {
        await both(async (isolate) => {
          for (const { held } of spared) expect(degraded(await me(isolate, held))).toBe('');
        });
      }
      await expectClosed();
    });

    test('three lots of its messages, older than the others, hold up none of them', async () => {
      const { app, redis, keyOf } = stage;
      const nowMs = Date.now();
      const ids = Array.from({ length: 12_000 }, (_, index) => `held${index}`);
      const deadIds = ids.filter((id) => isDead(`{${id}}`)).slice(0, 3_000);
      const liveIds = ids.filter((id) => !isDead(`{${id}}`)).slice(0, 10);
      expect([deadIds.length, liveIds.length]).toEqual([3_000, 10]);
      await app.sql(
        `INSERT INTO outbox (id, message, state, due_at_ms, created_at_ms, expires_at_ms)
         SELECT value, json_object('kind', 'session-end', 'sessionId', value || '.s', 'reason', 'logout', 'expiresAtMs', ?),
           'pending', 0, ?, ? FROM json_each(?)`,
        nowMs + 3_600_000,
        nowMs,
        nowMs + 3_600_000,
        JSON.stringify([...deadIds, ...liveIds]),
      );
      const pending = () => app.sql("SELECT id FROM outbox WHERE state = 'pending' AND id LIKE 'held%'");
      await app.scheduled();
      expect(new Set((await pending()).map(({ id }) => id))).toEqual(new Set(deadIds));
      for (const id of liveIds) expect(await redis.engine('HGET', keyOf.blacklist(id), `s:${id}.s`)).not.toBeNull();
      await expectClosed();

      // Those that were tried in vain stand behind a new one, too.
      await app.sql("UPDATE outbox SET state = 'pending' WHERE id = ?", liveIds[0]);
      await redis.engine('DEL', keyOf.blacklist(liveIds[0]!));
      await app.scheduled();
      expect(await redis.engine('HGET', keyOf.blacklist(liveIds[0]!), `s:${liveIds[0]!}.s`)).not.toBeNull();
      expect(await pending()).toHaveLength(3_000);
      await app.sql("DELETE FROM outbox WHERE id LIKE 'held%'");
    });

    test('its users refresh, and are logged out for good', async () => {
      const [one, other] = struck;
      const [here, there] = stage.isolates;
      const renewedOne = renewed(one!.held, await refresh(here, one!.held));
      for (const isolate of stage.isolates) expect((await me(isolate, renewedOne)).status).toBe(200);
      struck[0] = { ...one!, held: renewedOne };

      const logout = await here('POST', '/v1/auth/logout', { token: other!.held.access });
      expect(logout.status).toBe(204);
      struck.splice(1, 1);
      // D1 may be believed for a second by an isolate that has just asked it.
      await until(async () => (await me(there, other!.held)).status === 401, 'the other isolate refuses it');
      for (const isolate of stage.isolates) {
        expect(await me(isolate, other!.held)).toMatchObject(REVOKED);
        expect(await refresh(isolate, other!.held)).toMatchObject(REVOKED);
      }

      await Promise.all(dead.map((node) => node.restart()));
      await until(
        async () => {
          for (const isolate of stage.isolates) {
            expect(await me(isolate, other!.held)).toMatchObject(REVOKED);
            for (const { held } of [...spared.slice(0, 3), ...struck.slice(0, 3)]) {
              expect((await me(isolate, held)).status).toBe(200);
            }
          }
          const answers = await Promise.all(stage.isolates.map((isolate) => me(isolate, struck[2]!.held)));
          return answers.every((answer) => degraded(answer) === '');
        },
        'the shard is relied on again',
        30_000,
      );
      // The shard had the revocation before any request relied on it.
      const [denied] = (await stage.redis.engine(
        'HMGET',
        stage.keyOf.blacklist(other!.held.userId),
        `s:${other!.held.id}`,
      )) as (string | null)[];
      expect(denied).not.toBeNull();
      const allServe = { redis: 'up', redisAvailable: true, redisShardsOut: 0 };
      await expect.poll(health, { timeout: 30_000 }).toMatchObject([allServe, allServe]);
      for (const isolate of stage.isolates) expect(await me(isolate, other!.held)).toMatchObject(REVOKED);
    });
  },
);

/** The dead shard's commands: those with such a key. */
function concernsDead([name, ...args]: WireCommand): boolean {
  const upper = String(name).toUpperCase();
  if (['PING', 'TIME', 'INFO', 'CLUSTER'].includes(upper)) return false;
  const keys = upper.startsWith('EVAL') ? args.slice(2, 2 + Number(args[1])) : args.slice(0, 1);
  return keys.some((key) => isDead(String(key)));
}
