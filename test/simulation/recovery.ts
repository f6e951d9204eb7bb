import type { Clients } from './clients.ts';
import type { Account } from './model.ts';
import { ISOLATES } from './plan.ts';
import type { ClientStep } from './plan.ts';
import type { World } from './world.ts';

/** For how long a client looks for the mail. */
const MAIL_MS = 8_000;

/** A new password by mail. Its token is shown at two isolates at once, and once more: one of them uses it up. */
export async function recover(world: World, clients: Clients, account: Account, step: ClientStep): Promise<void> {
  const { model, scheduler } = world;
  const { email, restoredMs } = account;
  const label = `owner of ${email}`;
  const known = world.mailsTo(email).length;
  const ask = {
    label,
    isolate: step.isolate,
    lose: step.lose,
    method: 'POST',
    path: '/v1/auth/recovery',
    body: { email },
  };
  await clients.call(ask);
  for (let waitedMs = 0; world.mailsTo(email).length === known && waitedMs < MAIL_MS; waitedMs += 500)
    await scheduler.sleep(500);
  const token = world.mailsTo(email)[known];
  if (token === undefined) return;
  const newPassword = `password by mail number ${account.endings.length}`;
  const sinceMs = scheduler.nowMs;
  const by = world.isolates[step.isolate]!;
  const what = `the password by mail of ${email}`;
  const ending = { what, sinceMs, ackedMs: Number.POSITIVE_INFINITY, possible: true, by };
  account.endings.push(ending);
  account.passwordSure = false;
  const show = (index: number) =>
    clients.call({
      label,
      isolate: (step.isolate + index) % ISOLATES,
      method: 'POST',
      path: '/v1/auth/recovery/confirm',
      body: { token, newPassword },
    });
  const outcomes = [...(await Promise.all([show(0), show(1)])), await show(2)];
  const made = outcomes.flatMap((outcome) =>
    outcome.lost || outcome.exchange.status !== 204 ? [] : [outcome.exchange],
  );
  const [first] = made;
  if (first === undefined || account.restoredMs !== restoredMs) return;
  if (made.length > 1)
    model.violate('once', scheduler.nowMs, `${label}: a token out of a mail was used ${made.length} times`);
  account.endings[account.endings.indexOf(ending)] = { ...ending, ackedMs: first.arrivedMs, by: first.isolate };
  world.trace(() => `${what} is acknowledged`);
  account.password = newPassword;
  account.passwordSure = true;
}
