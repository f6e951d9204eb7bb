import { LIMITS } from './bounds.ts';
import type { Clients } from './clients.ts';
import { loginOnce, renameOnce } from './keyedClients.ts';
import type { Account, Device } from './model.ts';
import { busy, ownName, ownSession, underLock } from './ownClients.ts';
import type { AdminAction, ClientStep, DeviceAction } from './plan.ts';
import { recover } from './recovery.ts';
import type { World } from './world.ts';

/** The accounts of a run. */
export interface Cast {
  admin: Device;
  accounts: Account[];
}

/** What an action needs. */
interface Scene {
  world: World;
  clients: Clients;
  cast: Cast;
  step: ClientStep;
  account: Account;
}

/** Lets a client do what the plan says; nothing where there is no such client any more. */
export async function clientStep(world: World, clients: Clients, cast: Cast, step: ClientStep): Promise<void> {
  const account = cast.accounts[step.account % cast.accounts.length]!;
  const scene: Scene = { world, clients, cast, step, account };
  if (step.do in byDevice) {
    const devices = account.devices.filter(({ signedOut }) => !signedOut);
    const device = devices[step.device % devices.length];
    if (device !== undefined) await byDevice[step.do as DeviceAction](scene, device, devices);
    return;
  }
  if (step.do in byAdmin) return void (await byAdmin[step.do as AdminAction](scene));
  if (step.do === 'login') return clients.login(account, step);
  if (step.do === 'guess') return clients.guess(account, step.count ?? 1, step);
  if (step.do === 'login-once') return loginOnce(world, clients, account, step);
  if (step.do === 'busy') return busy(world, clients, step);
  if (step.do === 'own-name') return ownName(world, clients, account, step);
  if (step.do === 'own-session') return ownSession(world, clients, account, step);
  if (step.do === 'recover') return recover(world, clients, account, step);
  if (step.do === 'lock') return underLock(world, clients, step);
  return thief(scene);
}

const UNLIMITED = '/v1/own/me';

/** Longer than an end may take to count in another isolate while Redis is up. */
const STILL_MS = 8_000;

const byDevice: Record<DeviceAction, (scene: Scene, device: Device, devices: readonly Device[]) => Promise<unknown>> = {
  read: ({ clients, step }, device) => clients.read(device, step),
  'read-unlimited': ({ clients, step }, device) => clients.read(device, { ...where(step), path: UNLIMITED }),
  burst: ({ clients, step: { count = 2, isolate } }, device) =>
    Promise.all(Array.from({ length: count }, () => clients.read(device, { isolate }))),
  refresh: ({ clients, step }, device) => clients.refresh(device, step),
  rename: ({ clients, step }, device) => clients.rename(device, step),
  'rename-once': ({ world, clients, step }, device) => renameOnce(world, clients, device, step),
  devices: ({ clients, step }, device) =>
    clients.honest(device, { ...where(step), method: 'GET', path: '/v1/sessions' }),
  'revoke-access': ({ clients, step }, device) => clients.revoke(device, 'access', step),
  'revoke-refresh': ({ clients, step }, device) => clients.revoke(device, 'refresh', step),
  async steal({ world, clients, step }, device) {
    const access = await clients.steal(device, step);
    if (access === undefined || step.device % 2 !== 0) return;
    // A thief who keeps still until the owner has refreshed.
    await clients.refresh(device, step);
    await world.scheduler.sleep(STILL_MS);
    await clients.thief(device, access, 'access', step);
  },
  async logout({ clients, step }, device) {
    const call = { ...where(step), method: 'POST', path: '/v1/auth/logout' };
    await clients.ends(device, device.endings, `the logout of ${device.label}`, call);
    device.signedOut = true;
  },
  'logout-all'({ clients, step, account }, device) {
    const call = { ...where(step), method: 'POST', path: '/v1/auth/logout-all' };
    return clients.ends(device, account.endings, `the logout of all devices of ${account.email}`, call);
  },
  'end-device'({ clients, step }, device, devices) {
    const other = devices[(step.device + 1) % devices.length]!;
    const call = { ...where(step), method: 'DELETE', path: `/v1/sessions/${other.sessionId}` };
    return clients.ends(device, other.endings, `the end of ${other.label}`, call);
  },
  async delete({ clients, step, account }, device) {
    account.closed = true;
    const call = { ...where(step), method: 'DELETE', path: '/v1/users/me' };
    const answer = await clients.ends(device, account.endings, `the deletion of ${account.email}`, call);
    // It may have been enabled meanwhile.
    account.closed = true;
    if (answer !== undefined)
      account.deleted = account.endings.find(({ ackedMs }) => ackedMs === answer.exchange.arrivedMs);
  },
  async password({ clients, step, account }, device) {
    const newPassword = `${account.email} has its password number ${account.endings.length}`;
    const body = { currentPassword: account.password, newPassword };
    const call = { ...where(step), method: 'POST', path: '/v1/auth/password', body };
    account.passwordSure = false;
    const { restoredMs } = account;
    // Until the response is there its access token may be refused already. When that is lost, and the change was made,
    // the device's tokens are no good any more, and its owner logs in.
    const { unsure, refresh: token } = device;
    device.unsure = true;
    const what = `the new password of ${account.email}`;
    const answer = await clients.ends(device, account.endings, what, call, device);
    if (answer === undefined) return;
    device.unsure = unsure;
    if (account.restoredMs === restoredMs) {
      account.password = newPassword;
      account.passwordSure = true;
    }
    clients.keep(device, answer);
    const ending = account.endings.find(
      ({ ackedMs, except }) => except === device && ackedMs === answer.exchange.arrivedMs,
    );
    if (ending !== undefined && account.restoredMs === restoredMs) device.retired.push({ token, ending });
  },
};

const byAdmin: Record<AdminAction, (scene: Scene) => Promise<unknown>> = {
  async list({ world, clients, cast: { admin, accounts }, step }) {
    const answer = await clients.honest(admin, { ...where(step), method: 'GET', path: '/v1/users' });
    if (answer?.exchange.status !== 200) return;
    world.model.listed(answer.exchange, accounts, answer.body['items'] as { id: string; name: string }[]);
  },
  async inspect({ world, clients, cast: { admin }, step, account }) {
    const answer = await clients.honest(admin, { ...where(step), method: 'GET', path: `/v1/users/${account.id}` });
    if (answer?.exchange.status === 200) world.model.served(answer.exchange, account, String(answer.body['name']));
  },
  async role({ clients, cast: { admin }, step, account }) {
    const role = account.role === 'admin' ? 'user' : 'admin';
    // Where the role is not known, it may not change, and then no token is out of date.
    const affects = account.roleSure ? account.supersedings : [];
    account.roleSure = false;
    const { restoredMs } = account;
    const answer = await clients.ends(
      admin,
      affects,
      `the role ${role} of ${account.email}`,
      change(step, account, { role }),
    );
    if (answer === undefined || account.restoredMs !== restoredMs) return;
    account.role = role;
    account.roleSure = true;
  },
  async disable({ clients, cast: { admin }, step, account }) {
    account.closed = true;
    const call = change(step, account, { status: 'disabled' });
    await clients.ends(admin, account.endings, `the disabling of ${account.email}`, call);
    account.closed = true;
  },
  async enable({ clients, cast: { admin }, step, account }) {
    const answer = await clients.honest(admin, change(step, account, { status: 'active' }));
    if (answer?.exchange.status === 200) account.closed = false;
  },
  'end-sessions'({ clients, cast: { admin }, step, account }) {
    const call = { ...where(step), method: 'DELETE', path: `/v1/admin/users/${account.id}/sessions` };
    return clients.ends(admin, account.endings, `the end of all sessions of ${account.email}`, call);
  },
  async override({ world, clients, cast: { admin }, step }) {
    const { maxRequests = LIMITS.own.maxRequests } = step;
    const { limits } = world.model;
    const { restoredMs } = limits;
    const override = limits.overriding(maxRequests, world.scheduler.nowMs);
    const body = { policy: 'own', windows: [{ maxRequests, windowMs: LIMITS.own.windowMs }] };
    const call = { ...where(step), method: 'POST', path: '/v1/admin/limits/override', body };
    const answer = await clients.honest(admin, call);
    if (answer?.exchange.status === 200 && limits.restoredMs === restoredMs) override.ackedMs = world.scheduler.nowMs;
  },
};

/** Where a step is sent, and what becomes of it. */
const where = ({ isolate, lose }: ClientStep) => ({ isolate, lose });

const change = (step: ClientStep, account: Account, body: object) => ({
  ...where(step),
  method: 'PATCH',
  path: `/v1/users/${account.id}`,
  body,
});

/** Shows a token that was copied earlier, rather of a session that has ended than of one that lives. */
async function thief({ world, clients, cast, step }: Scene): Promise<void> {
  const all = cast.accounts.flatMap(({ devices }) => devices);
  const { nowMs } = world.scheduler;
  const ended = all.filter((device) => [...device.ends()].some(({ ackedMs }) => ackedMs < nowMs));
  const changed = all.filter(({ account, revoked }) => revoked.size > 0 || account.supersedings.length > 0);
  const devices = ended.length > 0 ? ended : changed.length > 0 ? changed : all;
  const byEnd = (device: Device) =>
    Math.max(0, ...[...device.ends()].map(({ ackedMs }) => ackedMs).filter((ms) => Number.isFinite(ms)));
  const device =
    step.do === 'thief-latest' || step.do === 'thief-unlimited'
      ? [...devices].sort((a, b) => byEnd(b) - byEnd(a))[0]
      : devices[step.device % devices.length];
  if (device === undefined) return;
  const options = { isolate: step.isolate, ...(step.do === 'thief-unlimited' && { path: UNLIMITED }) };
  // One from before a change of the password is worth nothing, and to show it ends no session.
  const retired = all.flatMap((one) => one.retired.map(({ token }) => ({ one, token })));
  const stolen = retired[step.device % retired.length];
  const isEnded = ended.includes(device);
  if (stolen !== undefined && (step.do === 'thief-retired' || (step.do === 'thief-refresh' && !isEnded)))
    return clients.thief(stolen.one, stolen.token, 'refresh', options);
  // The refresh token of a live session is left alone: to show it would be a theft, which ends the session.
  if (step.do === 'thief-refresh' && isEnded) return clients.thief(device, device.refresh, 'refresh', options);
  const recent = device.copies.slice(-4);
  const token = recent[step.device % recent.length];
  if (token !== undefined) await clients.thief(device, token, 'access', options);
}
