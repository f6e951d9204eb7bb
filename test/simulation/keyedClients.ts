import { ATTEMPTS, claimsOf, PATIENCE_MS } from './clients.ts';
import type { Answer, Clients } from './clients.ts';
import type { Account, Device } from './model.ts';
import { ISOLATES } from './plan.ts';
import type { ClientStep, Loss } from './plan.ts';
import type { Call, World } from './world.ts';

/** What the devices of logins with a key are called. */
export const ONCE = 'Once';

/**
 * Sends a request with an idempotency key until it is answered, each time to the next isolate; impatient clients send it to two
 * at once.
 */
async function repeated(
  world: World,
  clients: Clients,
  call: Omit<Call, 'isolate'>,
  { isolate, device, lose: first }: Omit<ClientStep, 'lose'> & { lose?: Loss | undefined },
  account: Account,
): Promise<Answer[]> {
  let lose = first;
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const at = (index: number) => ({ ...call, isolate: (isolate + attempt + index) % ISOLATES });
    const requests = [clients.call({ ...at(0), lose }, account)];
    if (device % 3 === 0) requests.push(clients.call(at(1), account));
    lose = undefined;
    const outcomes = await Promise.all(requests);
    const answers = outcomes.filter((outcome) => !outcome.lost);
    const isFinal = ({ exchange: { status } }: Answer) => status < 500 && status !== 409 && status !== 429;
    if (answers.some(isFinal)) return answers.filter(({ exchange }) => exchange.status < 300);
    const [answer] = answers;
    await world.scheduler.sleep(Math.min(answer?.retryAfterMs ?? 0, PATIENCE_MS));
  }
  return [];
}

/** Logs in with a key, and some time later sends the same request once more: one session begins. */
export async function loginOnce(world: World, clients: Clients, account: Account, step: ClientStep): Promise<void> {
  const { model, scheduler } = world;
  const sentMs = scheduler.nowMs;
  const key = `login ${step.at} ${step.device}`;
  const { password, restoredMs, email } = account;
  const address = `198.51.100.${account.devices.length % 200}`;
  const body = { email, password, device: `${ONCE} ${step.at} ${step.device}` };
  const call = { label: `${email} logs in once`, method: 'POST', path: '/v1/auth/login', body, address, key };
  const answers = await repeated(world, clients, call, step, account);
  const [answer] = answers;
  if (answer === undefined) return;
  const device = clients.newDevice(account, answer, sentMs);
  // It waited for the other of two requests, and D1 may have lost the session meanwhile.
  if (account.restoredMs !== restoredMs) Object.assign(device, { unsure: true, forgotten: true });
  await scheduler.sleep(step.device * 10);
  const later = await repeated(world, clients, call, { ...step, lose: undefined }, account);
  if (account.restoredMs !== restoredMs) return;
  for (const { exchange, body: tokens } of [...answers.slice(1), ...later]) {
    const { sid } = claimsOf(String(tokens['access_token']));
    const { label, isolate, arrivedMs } = exchange;
    if (sid === device.sessionId) model.accepted(exchange, device, device.refresh, 'refresh');
    else model.violate('once', arrivedMs, `${label} at ${isolate.name}: another session began for the same key`);
  }
}

/** A rename whose response comes late: its repeat does not undo a rename that was made between. */
export async function renameOnce(world: World, clients: Clients, device: Device, step: ClientStep): Promise<void> {
  const { account } = device;
  const { restoredMs } = account;
  const [value, write] = clients.newName(account, step.isolate);
  const key = `rename ${step.at} ${step.device}`;
  const path = '/v1/users/me';
  const call = { label: device.label, method: 'PATCH', path, body: { name: value }, token: device.access.text, key };
  const [answer] = await repeated(world, clients, call, step, account);
  // Made by the isolate that answered, whichever of those that were asked.
  if (answer !== undefined) Object.assign(write, { ackedMs: world.scheduler.nowMs, by: answer.exchange.isolate });
  const isMade = nameOf(world, account) === value;
  const between = await clients.rename(device, { isolate: (step.isolate + 1) % ISOLATES });
  if (!isMade || !between) return;
  await repeated(world, clients, call, step, account);
  if (account.restoredMs !== restoredMs || nameOf(world, account) !== value) return;
  world.model.violate('once', world.scheduler.nowMs, `${device.label}: PATCH ${path} with one key was executed twice`);
}

const nameOf = ({ database }: World, { id }: Account) =>
  database.execute(`SELECT name FROM users WHERE id = '${id}'`)[0]?.[0];

/** Logins with a key that have begun more than one session. */
export function begunTwice({ database }: World): unknown[] {
  const sql = `SELECT device FROM sessions WHERE device LIKE '${ONCE} %' GROUP BY device HAVING count(*) > 1`;
  return database.execute(sql).map(([device]) => device);
}
