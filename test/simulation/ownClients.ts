import type { Clients } from './clients.ts';
import type { Account } from './model.ts';
import type { ClientStep } from './plan.ts';
import type { World } from './world.ts';

/** A client comes again so soon, when it is busy. */
const PAUSE_MS = 150;

/** Calls a route with a limit, or with two, as fast as it can; a caller who was refused comes again when the response says. */
export async function busy(world: World, clients: Clients, step: ClientStep): Promise<void> {
  const { isolate, account, device, count = 1 } = step;
  const { model, scheduler } = world;
  const [own, shop] = [`caller ${account}`, `shop ${device % 2}`];
  const isTwice = device % 3 === 0;
  const path = isTwice ? `/v1/own/limited-twice?own=${own}&shop=${shop}` : `/v1/own/limited?own=${own}`;
  const request = async () => {
    const visit = model.limits.visit(own, scheduler.nowMs);
    const outcome = await clients.call({ label: own, isolate, method: 'GET', path: path.replaceAll(' ', '-') });
    if (outcome.lost) return undefined;
    const { exchange, retryAfterMs } = outcome;
    if (exchange.status === 204) model.admitted(exchange, 'own', own);
    if (exchange.status === 204 && isTwice) model.admitted(exchange, 'shop', shop);
    return exchange.status === 429 ? { exchange, retryAfterMs, visit } : undefined;
  };
  const requests: ReturnType<typeof request>[] = [];
  for (let index = 0; index < count; index += 1) {
    requests.push(request());
    if (index % 4 === 3) await scheduler.sleep(world.random.between(0, PAUSE_MS));
  }
  const refused = (await Promise.all(requests)).at(-1);
  // Other callers count under the second limit as well.
  if (refused === undefined || isTwice) return;
  await scheduler.sleep(refused.retryAfterMs);
  if (!model.limits.isLast(own, refused.visit)) return;
  const again = await request();
  if (again !== undefined) model.limits.refusedAgain(again.exchange, own, refused.exchange);
}

/** Works under a lock that other isolates want as well. */
export async function underLock(world: World, clients: Clients, step: ClientStep): Promise<void> {
  const { isolate, device, lose } = step;
  const label = `worker ${device}`;
  const body = step.lock;
  const since = world.scheduler.nowMs;
  const outcome = await clients.call({ label, isolate, lose, method: 'POST', path: '/v1/own/locks', body });
  if (outcome.lost || outcome.exchange.status !== 200) return;
  world.model.locks.had(Number(outcome.body['fence']), since, world.scheduler.nowMs);
}

/** Code of the app's own reads an account's name through the cache. */
export async function ownName(
  { model }: World,
  clients: Clients,
  account: Account,
  { isolate }: ClientStep,
): Promise<void> {
  const call = { label: `reader of ${account.email}`, isolate, method: 'GET', path: `/v1/own/name?id=${account.id}` };
  const outcome = await clients.call(call);
  if (outcome.lost || outcome.exchange.status !== 200) return;
  const { name } = outcome.body;
  if (typeof name === 'string') model.listed(outcome.exchange, [account], [{ id: account.id, name }]);
}

/** Code of the app's own asks whether a session lives. */
export async function ownSession(
  { model }: World,
  clients: Clients,
  account: Account,
  { isolate, device: which }: ClientStep,
): Promise<void> {
  const device = account.devices[which % account.devices.length];
  if (device === undefined) return;
  const path = `/v1/own/session?id=${device.sessionId}`;
  const outcome = await clients.call({ label: `reader of ${device.label}`, isolate, method: 'GET', path });
  if (outcome.lost || outcome.exchange.status !== 200) return;
  if (outcome.body['lives'] === true) model.lives(outcome.exchange, device);
  else model.livesNot(outcome.exchange, device);
}
