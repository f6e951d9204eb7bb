import { expect, test } from 'vitest';

import type { RunningApp } from '../app.ts';
import { clientOf, newcomer } from '../client.ts';
import type { Answer } from '../client.ts';
import { expectTokens, login } from '../flow.ts';
import type { Mailbox } from '../mailbox.ts';

/** `SESSIONS_PER_USER` of the app. */
export const MOST_SESSIONS = 3;

export interface Contended {
  /** Two isolates, no limits, {@link MOST_SESSIONS}. */
  app: RunningApp;
  mailbox: Mailbox;
}

const codesOf = (answers: readonly Answer[]) => {
  const counts: Record<string, number> = {};
  for (const { status, body } of answers) {
    const code = status < 300 ? 'ok' : String(body.code);
    counts[code] = (counts[code] ?? 0) + 1;
  }
  return counts;
};

/** What must hold when two isolates change the same rows at the same moment, on either database. */
export function contention(scene: () => Contended): void {
  /** The same call many times at once, by turns through both isolates. */
  const atOnce = (times: number, work: (call: ReturnType<typeof clientOf>, index: number) => Promise<Answer>) => {
    const calls = scene().app.urls.map((url) => clientOf(url));
    return Promise.all(Array.from({ length: times }, (_, index) => work(calls[index % calls.length]!, index)));
  };
  const here = () => clientOf(scene().app.urls[0]!);
  const newAccount = async () => {
    const person = newcomer();
    const answer = await here()('POST', '/v1/auth/register', { body: person });
    return { ...person, id: answer.body.user.id as string, ...expectTokens(answer, 201) };
  };

  test('one of 12 registrations of one address makes an account', async () => {
    const person = newcomer();
    const answers = await atOnce(12, (call) => call('POST', '/v1/auth/register', { body: person }));
    expect(codesOf(answers)).toEqual({ ok: 1, EMAIL_TAKEN: 11 });
    expect(await scene().app.sql(`select id from users where email = '${person.email}'`)).toHaveLength(1);
  });

  test('one of 12 that show one token of a mail has it', async () => {
    const person = await newAccount();
    await scene().mailbox.tokenFor(person.email);
    for (let round = 1; round <= 3; round += 1) {
      expect((await here()('POST', '/v1/auth/recovery', { body: { email: person.email } })).status).toBe(202);
      const token = await scene().mailbox.tokenFor(person.email);
      const answers = await atOnce(12, (call, index) =>
        call('POST', '/v1/auth/recovery/confirm', { body: { token, newPassword: `horse battery ${round} ${index}` } }),
      );
      expect(codesOf(answers)).toEqual({ ok: 1, ONE_TIME_TOKEN_INVALID: 11 });
      const index = answers.findIndex(({ status }) => status < 300);
      const again = await login(here(), { ...person, password: `horse battery ${round} ${index}` });
      expect(again.status).toBe(200);
    }
  });

  test('of administrators who all give up their rights at once, one stays', async () => {
    await scene().app.sql(`update users set role = 'user' where role = 'admin'`);
    const admins = await Promise.all(Array.from({ length: 4 }, newAccount));
    const ids = admins.map(({ id }) => `'${id}'`).join(', ');
    await scene().app.sql(`update users set role = 'admin' where id in (${ids})`);
    const tokens = await Promise.all(admins.map(async (admin) => expectTokens(await login(here(), admin), 200).access));
    const answers = await atOnce(admins.length, (call, index) =>
      call('PATCH', `/v1/users/${admins[index]!.id}`, { token: tokens[index]!, body: { role: 'user' } }),
    );
    expect(codesOf(answers)).toEqual({ ok: 3, LAST_ADMINISTRATOR: 1 });
    expect(await scene().app.sql(`select id from users where role = 'admin' and status = 'active'`)).toHaveLength(1);
  });

  test('no refresh brings back a session that ends at the same moment', async () => {
    for (let round = 0; round < 6; round += 1) {
      const person = await newAccount();
      const answers = await atOnce(6, (call, index) =>
        index === 3
          ? call('POST', '/v1/auth/logout-all', { token: person.access })
          : call('POST', '/v1/auth/refresh', { body: { refresh_token: person.refresh } }),
      );
      expect(answers[3]!.status).toBe(204);
      const held = answers.flatMap(({ status, body }) => (status === 200 ? [body] : []));
      for (const body of [...held, { access_token: person.access, refresh_token: person.refresh }]) {
        const me = await here()('GET', '/v1/users/me', { token: body.access_token });
        expect(me.status).toBe(401);
        const next = await here()('POST', '/v1/auth/refresh', { body: { refresh_token: body.refresh_token } });
        expect(next.body.code).toBe('TOKEN_REVOKED');
      }
    }
  });

  test('after 12 logins at once, the next one leaves no more sessions than a user may have', async () => {
    const person = await newAccount();
    expect(codesOf(await atOnce(12, (call) => login(call, person)))).toEqual({ ok: 12 });
    const last = expectTokens(await login(here(), person), 200);
    const { body } = await here()('GET', '/v1/sessions', { token: last.access });
    expect(body.total).toBe(MOST_SESSIONS);
    const live = `select count(*) as n from sessions where user_id = '${person.id}' and ended_at_ms is null`;
    expect(Number((await scene().app.sql(live))[0]!['n'])).toBe(MOST_SESSIONS);
  });

  test('the scheduled run delivers the rest, and no response was a 500', async () => {
    await scene().app.scheduled();
    const pending = await scene().app.sql(`select count(*) as n from outbox where state = 'pending'`);
    expect(Number(pending[0]!['n'])).toBe(0);
    expect(scene().app.logs.filter((line) => /scheduled\.failed|database\.mistake|"INTERNAL"/.test(line))).toEqual([]);
  });
}
