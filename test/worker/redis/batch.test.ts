import { describe, expect, test, vi } from 'vitest';

import { createRedisBatch } from '../../../src/redis/batch';
import { createBreaker } from '../../../src/redis/breaker';
import { noteBlocked } from '../../../src/util/busy';
import type { Command, RedisClient, Reply } from '../../../src/redis/client';
import { RedisReplyError, RedisUnavailable } from '../../../src/redis/errors';
import { replyError } from '../../../src/redis/replyError';
import { defineScript } from '../../../src/redis/script';

const ping = defineScript(`return 'pong'`);

/** A client that remembers what it was sent, and answers what the test says. */
function fakeClient(
  answer: (commands: readonly Command[]) => Promise<Reply[]> | Reply[] = (commands) =>
    commands.map((command) => ({ value: String(command[1] ?? command[0]) })),
) {
  const sent: Command[][] = [];
  const client: RedisClient = {
    async execute(commands) {
      sent.push([...commands]);
      return answer(commands);
    },
  };
  return { client, sent };
}

function batchOf(
  client: RedisClient,
  { deadlineMs = 200, now = Date.now }: { deadlineMs?: number; now?: () => number } = {},
) {
  const kept: Promise<unknown>[] = [];
  const breaker = createBreaker({
    windowMs: 10_000,
    minCalls: 2,
    failureRatio: 0.5,
    probeMs: 1_000,
    probeMaxMs: 30_000,
  });
  const waitUntil = (promise: Promise<unknown>) => void kept.push(promise);
  const batch = createRedisBatch({ client, breaker, waitUntil, deadlineMs, callTimeoutMs: 2_000, now });
  return { batch, breaker, kept };
}

const never = () => new Promise<Reply[]>(() => undefined);

describe('commands of one turn', () => {
  test('leave as one pipeline, in order, and get each its own answer', async () => {
    const { client, sent } = fakeClient();
    const { batch } = batchOf(client);
    const answers = await Promise.all([batch.send('GET', 'a'), batch.send('SET', 'b', 1), batch.send('GET', 'c')]);
    expect(answers).toEqual(['a', 'b', 'c']);
    expect(sent).toEqual([
      [
        ['GET', 'a'],
        ['SET', 'b', 1],
        ['GET', 'c'],
      ],
    ]);
  });

  test('one error is one command’s', async () => {
    const { client } = fakeClient((commands) =>
      commands.map((command) =>
        command[1] === 'bad' ? { error: replyError('WRONGTYPE Operation against a key bad') } : { value: 1 },
      ),
    );
    const { batch, breaker } = batchOf(client);
    const [good, bad] = await Promise.allSettled([batch.send('GET', 'good'), batch.send('GET', 'bad')]);
    expect(good).toEqual({ status: 'fulfilled', value: 1 });
    expect(bad).toMatchObject({ status: 'rejected', reason: { name: 'RedisReplyError', code: 'WRONGTYPE' } });
    expect(String((bad as PromiseRejectedResult).reason)).not.toContain('bad');
    expect(breaker.state).toBe('closed');
  });

  test('hold() collects across turns', async () => {
    const { client, sent } = fakeClient();
    const { batch } = batchOf(client);
    const release = batch.hold();
    const first = batch.send('GET', 'a');
    await Promise.resolve();
    const second = batch.send('GET', 'b');
    expect(sent).toEqual([]);
    release();
    expect(await Promise.all([first, second])).toEqual(['a', 'b']);
    expect(sent).toHaveLength(1);
  });
});

test('a script that the server does not know is sent as text, in one more trip', async () => {
  const known = new Set<unknown>();
  const { client, sent } = fakeClient((commands) =>
    commands.map((command) => {
      if (command[0] === 'EVAL') known.add(ping.sha);
      else if (command[0] === 'EVALSHA' && !known.has(command[1]))
        return { error: replyError('NOSCRIPT No matching script') };
      return { value: 'ok' };
    }),
  );
  const { batch } = batchOf(client);
  const [a, b] = await Promise.all([batch.run(ping, ['k'], [1]), batch.send('GET', 'x')]);
  expect([a, b]).toEqual(['ok', 'ok']);
  expect(sent.map((commands) => commands.map(([name]) => name))).toEqual([['EVALSHA', 'GET'], ['EVAL']]);
  expect(sent[1]?.[0]).toEqual(['EVAL', ping.text, 1, 'k', 1]);
  await batch.run(ping, ['k'], [1]);
  expect(sent).toHaveLength(3);
});

test('where the server takes it, scripts begin with the key-locking flag', async () => {
  const { client, sent } = fakeClient((commands) =>
    commands.map(([name]) => (name === 'EVALSHA' ? { error: replyError('NOSCRIPT') } : { value: 1 })),
  );
  const { breaker } = batchOf(client);
  const waitUntil = () => undefined;
  const batch = createRedisBatch({ client, breaker, waitUntil, deadlineMs: 200, callTimeoutMs: 200, keyLocking: true });
  await batch.run(ping, ['k'], []);
  expect(sent.flat()).toEqual([
    ['EVALSHA', ping.locking.sha, 1, 'k'],
    ['EVAL', `#!lua flags=allow-key-locking\n${ping.text}`, 1, 'k'],
  ]);
});

describe('the deadline', () => {
  test('is one for all calls of the request', async () => {
    const { client, sent } = fakeClient(never);
    const { batch } = batchOf(client, { deadlineMs: 30 });
    await expect(batch.send('GET', 'a')).rejects.toMatchObject({ reason: 'deadline' });
    await expect(batch.send('GET', 'b')).rejects.toMatchObject({ reason: 'deadline' });
    expect(sent).toHaveLength(1);
  });

  test('ends the wait, not the call: its real outcome is scored', async () => {
    let answer: (replies: Reply[]) => void = () => undefined;
    const { client } = fakeClient(
      () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    );
    const { batch, breaker, kept } = batchOf(client, { deadlineMs: 20 });
    const record = vi.spyOn(breaker, 'record');
    await expect(batch.send('GET', 'a')).rejects.toMatchObject({ reason: 'deadline' });
    expect(record).not.toHaveBeenCalled();
    answer([{ value: 1 }]);
    await Promise.all(kept);
    expect(record.mock.calls.map(([ok]) => ok)).toEqual([true]);
  });

  test('an answer that came while the isolate was busy still counts', async () => {
    const { client } = fakeClient(async () => {
      // Arrives in the same turn as the timer, one event loop turn behind it.
      await new Promise((resolve) => {
        setTimeout(resolve, 20);
      });
      await new Promise((resolve) => {
        setTimeout(resolve, 0);
      });
      return [{ value: 'in time' }];
    });
    const { batch } = batchOf(client, { deadlineMs: 20 });
    expect(await batch.send('GET', 'a')).toBe('in time');
  });

  test('waits that overlap count once', async () => {
    let nowMs = 0;
    const answers: (() => void)[] = [];
    const { client, sent } = fakeClient(
      (commands) => new Promise((resolve) => answers.push(() => resolve(commands.map(() => ({ value: 1 }))))),
    );
    const { batch } = batchOf(client, { deadlineMs: 200, now: () => nowMs });
    // Five reads of 83 ms, each begun in a turn of its own and 10 ms after the one before.
    const reads: Promise<unknown>[] = [];
    for (let read = 0; read < 5; read += 1) {
      nowMs = read * 10;
      reads.push(batch.send('GET', read));
      await Promise.resolve();
    }
    for (const [read, answer] of answers.entries()) {
      nowMs = read * 10 + 83;
      answer();
      expect(await reads[read]).toBe(1);
    }
    // 123 ms have passed: 77 are left, of which this takes 76 …
    const sixth = batch.send('GET', 'six');
    await Promise.resolve();
    nowMs += 76;
    answers.at(-1)?.();
    expect(await sixth).toBe(1);
    // … and this the last one.
    const seventh = batch.send('GET', 'seven');
    await Promise.resolve();
    nowMs += 1;
    answers.at(-1)?.();
    expect(await seventh).toBe(1);
    await expect(batch.send('GET', 'eight')).rejects.toMatchObject({ reason: 'deadline' });
    expect(sent).toHaveLength(7);
  });

  test('time between waits is free, and blocked time of overlapping waits too', async () => {
    let nowMs = 0;
    const answers: (() => void)[] = [];
    const { client } = fakeClient(
      (commands) => new Promise((resolve) => answers.push(() => resolve(commands.map(() => ({ value: 1 }))))),
    );
    const { batch } = batchOf(client, { deadlineMs: 100, now: () => nowMs });
    const answerAll = () => answers.splice(0).forEach((answer) => answer());
    const begin = async () => {
      const reads = [batch.send('GET', 'a')];
      await Promise.resolve();
      reads.push(batch.send('GET', 'b'));
      await Promise.resolve();
      return reads;
    };
    const first = await begin();
    nowMs += 300;
    noteBlocked(260);
    answerAll();
    expect(await Promise.all(first)).toEqual([1, 1]);
    nowMs += 1_000;
    const second = await begin();
    nowMs += 59;
    answerAll();
    expect(await Promise.all(second)).toEqual([1, 1]);
    const third = await begin();
    nowMs += 1;
    answerAll();
    expect(await Promise.all(third)).toEqual([1, 1]);
    await expect(batch.send('GET', 'c')).rejects.toMatchObject({ reason: 'deadline' });
  });

  test('a deadline that is set anew during a wait counts from then on', async () => {
    let nowMs = 0;
    const answers: (() => void)[] = [];
    const { client } = fakeClient(
      (commands) => new Promise((resolve) => answers.push(() => resolve(commands.map(() => ({ value: 1 }))))),
    );
    const { batch } = batchOf(client, { deadlineMs: 100, now: () => nowMs });
    const read = batch.send('GET', 'a');
    await Promise.resolve();
    nowMs = 90;
    batch.setDeadline(50);
    nowMs = 139;
    answers[0]?.();
    expect(await read).toBe(1);
    const next = batch.send('GET', 'b');
    await Promise.resolve();
    nowMs = 140;
    answers[1]?.();
    expect(await next).toBe(1);
    await expect(batch.send('GET', 'c')).rejects.toMatchObject({ reason: 'deadline' });
  });

  test('time that this isolate spent computing is not held against Redis', async () => {
    let nowMs = 0;
    const { client } = fakeClient((commands) => {
      nowMs += 500;
      noteBlocked(490);
      return commands.map(() => ({ value: 1 }));
    });
    const { batch } = batchOf(client, { deadlineMs: 25, now: () => nowMs });
    expect(await batch.send('GET', 'a')).toBe(1);
    expect(await batch.send('GET', 'b')).toBe(1);
    await expect(batch.send('GET', 'c').then(() => batch.send('GET', 'd'))).rejects.toMatchObject({
      reason: 'deadline',
    });
  });
});

describe('a server that cannot serve', () => {
  test.each(['LOADING', 'READONLY', 'OOM command not allowed', 'MISCONF', 'ERR max daily request limit exceeded'])(
    '%s makes the whole trip unusable, and is a failure',
    async (text) => {
      const { client } = fakeClient(() => [{ value: 'stale' }, { error: replyError(text) }]);
      const { batch, breaker, kept } = batchOf(client);
      const ask = () => Promise.allSettled([batch.send('GET', 'a'), batch.send('SET', 'b', 1)]);
      for (const outcome of await ask())
        expect(outcome).toMatchObject({ reason: { name: 'RedisUnavailable', reason: 'state' } });
      await ask();
      await Promise.all(kept);
      expect(breaker.state).toBe('open');
    },
  );

  test('with the breaker open no call is made', async () => {
    const { client, sent } = fakeClient(() => Promise.reject(new RedisUnavailable('refused')));
    const { batch, breaker } = batchOf(client);
    await Promise.allSettled([batch.send('GET', 'a')]);
    await Promise.allSettled([batch.send('GET', 'a')]);
    expect(breaker.state).toBe('open');
    await expect(batch.send('GET', 'b')).rejects.toMatchObject({ reason: 'breaker' });
    expect(sent).toHaveLength(2);
  });
});

describe('deferred commands', () => {
  test('leaves once, after the answer, and heals like the rest', async () => {
    let cold = true;
    const { client, sent } = fakeClient((commands) =>
      commands.map(([name]) =>
        cold && name === 'EVALSHA' ? { error: new RedisReplyError('NOSCRIPT') } : { value: 1 },
      ),
    );
    const { batch } = batchOf(client);
    const outcomes = [batch.deferRun(ping, ['a'], []), batch.deferRun(ping, ['b'], [])];
    await Promise.resolve();
    expect(sent).toHaveLength(0);
    await batch.settle();
    cold = false;
    expect(await Promise.all(outcomes)).toEqual([1, 1]);
    expect(sent.map((commands) => commands.length)).toEqual([2, 2]);
  });

  test('after the answer is sent by itself', async () => {
    const { client, sent } = fakeClient();
    const { batch, kept } = batchOf(client);
    await batch.settle();
    void batch.deferRun(ping, ['late'], []);
    await Promise.resolve();
    await Promise.all(kept);
    expect(sent).toHaveLength(1);
  });

  test('rejects quietly when Redis is away', async () => {
    const { client } = fakeClient(() => Promise.reject(new RedisUnavailable('refused')));
    const { batch } = batchOf(client);
    const outcome = batch.deferRun(ping, ['a'], []);
    await batch.settle();
    await expect(outcome).rejects.toThrow(RedisUnavailable);
  });
});
