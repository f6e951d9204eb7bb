import { describe, expect, test } from 'vitest';

import { BACKENDS } from '../../support/backends.ts';
import { until } from '../../support/redisServers.ts';
import { me, refresh, renewed, startStage, wake } from '../../support/stage.ts';

describe.each(BACKENDS)('100 parallel refreshes of one token in two isolates, on $name', ({ missing, start }) => {
  test.skipIf(missing)('are one generation with one successor', async () => {
    await using backend = await start();
    await using stage = await startStage(backend);
    const { isolates, redis, app, keyOf } = stage;
    const [person] = await stage.people(1, 1);
    const session = await wake(isolates[0], person!.sessions[0]!);

    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, index) => refresh(isolates[index % 2 === 0 ? 0 : 1], session)),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(answers.filter(({ headers }) => headers.has('Gatehouse-Degraded'))).toEqual([]);
    const [successor, ...others] = new Set(answers.map(({ body }) => body.refresh_token as string));
    expect(others).toEqual([]);
    expect(successor).not.toBe(session.refresh);

    // The session woke with generation 2: this is the third, for all hundred.
    expect(await redis.engine('HMGET', keyOf.session(session.id), 'g', 'c')).toEqual(['3', '2']);
    await until(async () => {
      const [row] = await app.sql('SELECT generation FROM sessions WHERE id = ?', session.id);
      return row?.['generation'] === 3;
    }, 'D1 was told');

    // Whichever answer arrived, the client goes on with it.
    const last = renewed(session, answers.at(-1)!);
    for (const isolate of isolates) expect((await me(isolate, last)).status).toBe(200);
    const next = renewed(last, await refresh(isolates[1], last));
    expect(await redis.engine('HGET', keyOf.session(session.id), 'g')).toBe('4');
    expect((await me(isolates[0], next)).status).toBe(200);
  });
});
