import type { Clients } from './clients.ts';
import type { Account } from './model.ts';
import type { ClientStep } from './plan.ts';
import type { World } from './world.ts';

/** A client comes again so soon, when it is busy. */
const PAUSE_MS = 150;

/** Calls a route with a limit, or with two, as fast as it can. */
export async function busy(world: World, clients: Clients, step: ClientStep): Promise<void> {
  const { isolate, account, device, count = 1 } = step;
  const [own, shop] = [`caller ${account}`, `shop ${device % 2}`];
  const path = device % 3 === 0 ? `/v1/own/limited-twice?own=${own}&shop=${shop}` : `/v1/own/limited?own=${own}`;
  const request = async () => {
    const outcome = await clients.call({ label: own, isolate, method: 'GET', path: path.replaceAll(' ', '-') });
    if (outcome.lost || outcome.exchange.status !== 204) return;
    world.model.admitted(outcome.exchange, 'own', own);
    if (path.includes('shop')) world.model.admitted(outcome.exchange, 'shop', shop);
  };
  const requests: Promise<void>[] = [];
  for (let index = 0; index < count; index += 1) {
    requests.push(request());
    if (index % 4 === 3) await world.scheduler.sleep(world.random.between(0, PAUSE_MS));
  }
  await Promise.all(requests);
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
