import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import type { Answer, Call } from '../../support/client.ts';
import type { WireCommand } from '../../support/faults.ts';
import { REDIS_MISSING, hasRedisServer, startRedis, until } from '../../support/redisServers.ts';
import type { RedisProcess } from '../../support/redisServers.ts';
import { PASSWORD, REVOKED, me, refresh, startStage, wake } from '../../support/stage.ts';
import type { Held, Stage } from '../../support/stage.ts';

/** A breaker that opens after a few failures, as an outage opens it, and deadlines short enough to meet one. */
const SETTINGS = {
  BREAKER_WINDOW_MS: '2000',
  BREAKER_MIN_CALLS: '6',
  BREAKER_PROBE_MS: '100',
  BREAKER_PROBE_MAX_MS: '400',
  REDIS_GUARD_DEADLINE_MS: '500',
  REDIS_AUTH_DEADLINE_MS: '1000',
};

const post = (call: Call, name: string, { access: token }: Held, body?: object) =>
  call('POST', `/v1/auth/${name}`, { token, ...(body !== undefined && { body }) });

/** Each revokes the session that it is given, with another one of its user. */
const REVOCATIONS: [string, number, (call: Call, session: Held, keeper: Held) => Promise<Answer>][] = [
  ['a logout', 204, (call, session) => post(call, 'logout', session)],
  ['a logout everywhere', 204, (call, _, keeper) => post(call, 'logout-all', keeper)],
  [
    'a change of the password',
    200,
    (call, _, keeper) => {
      const body = { currentPassword: PASSWORD, newPassword: 'another horse battery' };
      return post(call, 'password', keeper, body);
    },
  ],
];

let stage: Stage;
let session: Held;
let keeper: Held;
let bystander: Held;

async function prepare(redisUrl?: string): Promise<void> {
  stage = await startStage(redisUrl === undefined ? {} : { redisUrl }, { settings: SETTINGS });
  const [here, there] = stage.isolates;
  const [person, other] = await stage.people(2, 2);
  session = await wake(here, person!.sessions[0]!);
  keeper = await wake(here, person!.sessions[1]!);
  bystander = await wake(here, other!.sessions[0]!);
  for (const isolate of [here, there]) {
    for (const held of [session, keeper, bystander]) expect((await me(isolate, held)).status).toBe(200);
  }
  await stage.redis.idle();
}

/** The message that ends the session, or all of its user's. */
const telling = ([name, ...rest]: WireCommand) =>
  String(name).startsWith('EVAL') &&
  rest.includes(stage.keyOf.blacklist(session.userId)) &&
  (rest.includes('logout') || rest.includes('av'));

const committed = () =>
  until(async () => {
    const [row] = await stage.app.sql('SELECT ended_at_ms FROM sessions WHERE id = ?', session.id);
    return row?.['ended_at_ms'] !== null;
  }, 'D1 has committed');

/** Whether Redis denies the session, by its id or by the user's epoch. */
async function denied(): Promise<boolean> {
  const [own, epoch] = (await stage.redis.engine(
    'HMGET',
    stage.keyOf.blacklist(session.userId),
    `s:${session.id}`,
    'ep',
  )) as (string | null)[];
  return own !== null || Number(epoch) > 1;
}

async function expectRefused(isolates: readonly Call[]): Promise<void> {
  for (const isolate of isolates) {
    expect(await me(isolate, session)).toMatchObject(REVOKED);
    expect(await refresh(isolate, session)).toMatchObject(REVOKED);
    // Another user's session is not refused.
    expect((await me(isolate, bystander)).status).toBe(200);
  }
}

const relies = async (call: Call) =>
  ((await call('GET', '/health')).body as { redisAvailable: boolean }).redisAvailable;

/** Until an isolate has noticed that Redis is away, or is back. */
async function untilRelying(isolates: readonly Call[], wanted: boolean): Promise<void> {
  for (const isolate of isolates) {
    await until(
      async () => {
        // What is revoked is tried all the time: at no moment is it let in.
        expect(await me(isolate, session)).toMatchObject(REVOKED);
        expect((await me(isolate, bystander)).status).toBe(200);
        return (await relies(isolate)) === wanted;
      },
      `it ${wanted ? 'relies on Redis again' : 'has noticed that Redis is away'}`,
    );
  }
}

afterEach(() => stage[Symbol.asyncDispose]());

describe.skipIf(!hasRedisServer)(
  `Redis is killed between the commit of a revocation and its own part${hasRedisServer ? '' : `: ${REDIS_MISSING}`}`,
  () => {
    let server: RedisProcess;

    beforeEach(async () => {
      // It comes back with everything that it had: of the revocation alone it knows nothing.
      server = await startRedis('--appendonly', 'yes', '--appendfsync', 'always');
      await prepare(server.url);
    });
    afterEach(() => server.stop());

    test.each(REVOCATIONS)(
      '%s: refused while Redis is gone, and delivered when it is back',
      async (_, status, revoke) => {
        const { redis, isolates } = stage;
        redis.mode = {
          kind: 'meanwhile',
          when: telling,
          times: 1,
          act: () => committed().then(() => server.kill()),
        };
        expect((await revoke(isolates[0], session, keeper)).status).toBe(status);
        expect(server.running).toBe(false);
        await expectRefused(isolates);
        await untilRelying(isolates, false);
        await expectRefused(isolates);

        await server.restart();
        await untilRelying(isolates, true);
        await until(denied, 'Redis has it');
        await expectRefused(isolates);
      },
    );
  },
);

/** One that calls Redis while D1 commits, and one that calls it afterwards. */
const [LOGOUT, EVERYWHERE] = REVOCATIONS;

describe('the Worker is killed between the commit of a revocation and the call to Redis', () => {
  beforeEach(() => prepare());

  test.each([LOGOUT!, EVERYWHERE!])('%s: the next run of the cron delivers it', async (_, _status, revoke) => {
    const { app, redis, isolates } = stage;
    await dieDuring(revoke);
    expect(await denied()).toBe(false);
    await app.sql('UPDATE outbox SET due_at_ms = due_at_ms - 5000');
    await app.scheduled();
    expect(await denied()).toBe(true);
    await expectRefused(isolates);
    expect(redis.mode).toEqual({ kind: 'none' });
  });

  test.each([LOGOUT!, EVERYWHERE!])(
    '%s, and Redis is gone as well: refused, and delivered when it is back',
    async (_, __, revoke) => {
      const { app, redis, isolates } = stage;
      await dieDuring(revoke);
      redis.mode = { kind: 'refuse' };
      await expectRefused(isolates);
      await untilRelying(isolates, false);
      await redis.clear();
      expect(await denied()).toBe(false);
      await untilRelying(isolates, true);
      expect(await denied()).toBe(true);
      await expectRefused(isolates);
      await app.scheduled();
      await expectRefused(isolates);
    },
  );

  /** Both isolates die when D1 has the revocation, and before their call to Redis. */
  async function dieDuring(revoke: (call: Call, session: Held, keeper: Held) => Promise<Answer>): Promise<void> {
    const { app, redis, isolates } = stage;
    redis.mode = {
      kind: 'meanwhile',
      when: telling,
      times: 1,
      act: async () => {
        await committed();
        await app.kill();
        throw new Error('the client is gone');
      },
    };
    await expect(revoke(isolates[0], session, keeper)).rejects.toThrow('fetch failed');
    await until(async () => (await relies(isolates[1]).catch(() => undefined)) !== undefined, 'the Worker is back');
  }
});
