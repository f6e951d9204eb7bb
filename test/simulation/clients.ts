import type { Exchange } from './exchange.ts';
import { Device } from './model.ts';
import type { Account, Ending, Token, Write } from './model.ts';
import type { Loss } from './plan.ts';
import type { Call, Outcome, World } from './world.ts';

/** An answer that was not lost. */
export type Answer = Extract<Outcome, { lost: false }>;

interface Options {
  isolate: number;
  /** Of a read. @default '/v1/users/me' */
  path?: string;
  lose?: Loss | undefined;
}

/** What an honest client tries again after a lost response or a 503. */
export const ATTEMPTS = 4;
/** It waits for `Retry-After`, but not longer than this. */
export const PATIENCE_MS = 5_000;

/** The Worker records a refresh in D1 within this time, beside its response. */
const TOLD_MS = 2_100;

const ME = '/v1/users/me';

/** Clients that behave as docs/api.md asks, and those that it does not expect. */
export class Clients {
  readonly #world: World;
  #names = 0;

  constructor(world: World) {
    this.#world = world;
  }

  async register(account: Account, isolate: number): Promise<void> {
    const label = `${account.email} registers`;
    const body = { email: account.email, password: account.password, name: 'first', device: 'Phone' };
    const since = this.#now;
    const outcome = await this.call({ label, isolate, method: 'POST', path: '/v1/auth/register', body });
    if (outcome.lost || outcome.exchange.status !== 201) throw new Error(`${label}: ${JSON.stringify(outcome)}`);
    account.id = (outcome.body['user'] as { id: string }).id;
    account.names.push({ value: 'first', sinceMs: since, ackedMs: this.#now, by: outcome.exchange.isolate });
    this.newDevice(account, outcome, since);
  }

  async login(account: Account, { isolate, lose }: Options): Promise<void> {
    const body = { email: account.email, password: account.password, device: 'Phone' };
    const { password } = account;
    const address = `198.51.100.${account.devices.length % 200}`;
    const label = `${account.email} logs in`;
    const since = this.#now;
    const outcome = await this.call({ label, isolate, lose, method: 'POST', path: '/v1/auth/login', body, address });
    if (outcome.lost) return;
    const { status } = outcome.exchange;
    if (status === 200) this.newDevice(account, outcome, since);
    if (status === 401 && !account.closed && account.password === password && account.passwordSure) {
      this.#world.model.violate('signed-out', this.#now, `${label}: refused with the right password`);
    }
  }

  /** A signed-in request: refreshes when a 401 asks for it, tries again when a response is lost or a 503. */
  async honest(device: Device, call: Omit<Call, 'token' | 'label'>): Promise<(Answer & { used: Token }) | undefined> {
    const { model, scheduler } = this.#world;
    const label = device.label;
    let lose = call.lose;
    let refreshed = 0;
    let lostWith: Token | undefined;
    for (let attempt = 0; attempt < ATTEMPTS && !device.signedOut; attempt += 1) {
      const used = device.access;
      const role = roleOf(device.account);
      const outcome = await this.call({ ...call, lose, label, token: used.text }, device.account);
      lose = undefined;
      if (outcome.lost) {
        lostWith = used;
        continue;
      }
      const { exchange, retryAfterMs } = outcome;
      const { status, code } = exchange;
      if (status === 401 && (code === 'TOKEN_EXPIRED' || code === 'TOKEN_SUPERSEDED')) {
        refreshed += 1;
        if (refreshed > 2) return undefined;
        if (device.access === used && !(await this.refresh(device, { isolate: call.isolate }))) return undefined;
        continue;
      }
      if (status === 401) {
        if (device.access !== used) continue;
        if (!device.revoked.has(used.text)) model.refused(exchange, device);
        return undefined;
      }
      if (status === 503 || status === 429) {
        await scheduler.sleep(Math.min(retryAfterMs, PATIENCE_MS));
        continue;
      }
      const isRenewal = call.path === '/v1/auth/password' && lostWith === used;
      if (status < 300) model.accepted(exchange, device, used, isRenewal ? 'renewal' : 'access');
      if (status < 300 && isRenewal && role !== undefined && roleOf(device.account) === role)
        model.renewed(exchange, claimsOf(String(outcome.body['access_token'])).role, role);
      return { ...outcome, used };
    }
    return undefined;
  }

  /** One at a time a device; a lost response is asked for again with the same token. */
  refresh(device: Device, options: Options): Promise<boolean> {
    device.refreshing ??= this.#refresh(device, options).finally(() => {
      device.refreshing = undefined;
    });
    return device.refreshing;
  }

  async #refresh(device: Device, { isolate, lose: first }: Options): Promise<boolean> {
    const { model, scheduler } = this.#world;
    let lose = first;
    for (let attempt = 0; attempt < ATTEMPTS && !device.signedOut; attempt += 1) {
      const used = device.refresh;
      const outcome = await this.#showRefresh(device, used, isolate, lose);
      lose = undefined;
      if (outcome.lost) continue;
      const { exchange, retryAfterMs } = outcome;
      if (exchange.status === 200) {
        // A new password has brought other tokens meanwhile: they are newer than these.
        if (device.refresh === used) this.#keep(device, outcome);
        model.accepted(exchange, device, used, 'refresh');
        this.#findOut(device, used, exchange);
        return true;
      }
      if (exchange.status === 401) {
        // A new password has brought other tokens meanwhile.
        if (device.refresh !== used) return true;
        model.refused(exchange, device);
        return false;
      }
      await scheduler.sleep(Math.min(retryAfterMs, PATIENCE_MS));
    }
    return false;
  }

  /** Shows a token that was copied from a device, once: what is accepted must not have ended. */
  async thief(
    device: Device,
    token: Token,
    kind: 'access' | 'refresh',
    { isolate, path = ME }: Options,
  ): Promise<void> {
    const { model } = this.#world;
    const label = `thief of ${device.label}`;
    if (kind === 'refresh') {
      const outcome = await this.#showRefresh(device, token, isolate, undefined, label);
      if (!outcome.lost && outcome.exchange.status === 200) model.accepted(outcome.exchange, device, token, 'refresh');
      return;
    }
    const call = { label, isolate, method: 'GET', path, token: token.text };
    const outcome = await this.call(call, device.account);
    if (outcome.lost || outcome.exchange.status !== 200) return;
    model.accepted(outcome.exchange, device, token, 'access');
  }

  async read(device: Device, { isolate, lose, path = ME }: Options): Promise<void> {
    const answer = await this.honest(device, { isolate, lose, method: 'GET', path });
    if (answer?.exchange.status !== 200) return;
    this.#world.model.served(answer.exchange, device.account, String(answer.body['name']));
  }

  /** @returns whether it was acknowledged */
  async rename(device: Device, { isolate, lose }: Options): Promise<boolean> {
    const [value, write] = this.newName(device.account, isolate);
    const body = { name: value };
    const answer = await this.honest(device, { isolate, lose, method: 'PATCH', path: '/v1/users/me', body });
    if (answer?.exchange.status !== 200) return false;
    write.ackedMs = this.#now;
    return true;
  }

  /** A name that no account has had, which is about to be written. */
  newName({ names }: Account, isolate: number): [string, Write] {
    const value = `name${(this.#names += 1)}`;
    const write = { value, sinceMs: this.#now, ackedMs: Number.POSITIVE_INFINITY, by: this.#isolate(isolate) };
    names.push(write);
    return [value, write];
  }

  /**
   * Asks for something that ends sessions or tokens, and notes what may have ended from now on, and what has.
   *
   * @param affects where the end is noted
   */
  async ends(
    device: Device,
    affects: Ending[],
    what: string,
    call: Omit<Call, 'token' | 'label'>,
    except?: Device,
  ): Promise<Answer | undefined> {
    const by = this.#isolate(call.isolate);
    const asked = { what, sinceMs: this.#now, ackedMs: Number.POSITIVE_INFINITY, possible: true, by };
    const ending: Ending = { ...asked, ...(except !== undefined && { except }) };
    affects.push(ending);
    const { restoredMs } = device.account;
    const answer = await this.honest(device, call);
    if (answer === undefined) return undefined;
    const { status } = answer.exchange;
    if (status < 300) {
      // Made before a recovery of D1 that lost it, or after one that left nothing to end.
      if (device.account.restoredMs !== restoredMs) return answer;
      // The isolate of a retry is another one when the first has died.
      affects[affects.indexOf(ending)] = { ...ending, ackedMs: this.#now, by: answer.exchange.isolate };
      this.#world.trace(() => `${what} is acknowledged`);
      return answer;
    }
    // A 404 or 409 may come from the same request before, whose response was lost.
    if (status === 403) ending.possible = false;
    return undefined;
  }

  /** Ends the access token, or with its refresh token the session of a device (RFC 7009). */
  async revoke(device: Device, kind: 'access' | 'refresh', { isolate, lose }: Options): Promise<void> {
    const token = kind === 'access' ? device.access : device.refresh;
    const what = `the revocation of the ${kind} token of ${device.label}`;
    const by = this.#isolate(isolate);
    const ending: Ending = { what, sinceMs: this.#now, ackedMs: Number.POSITIVE_INFINITY, possible: true, by };
    if (kind === 'access') device.revoked.set(token.text, ending);
    else device.endings.push(ending);
    const call = {
      label: device.label,
      isolate,
      lose,
      method: 'POST',
      path: '/v1/auth/revoke',
      body: { token: token.text },
    };
    const outcome = await this.call(call, device.account);
    if (!outcome.lost && outcome.exchange.status === 200) {
      ending.ackedMs = this.#now;
      this.#world.trace(() => `${what} is acknowledged`);
    }
    if (kind === 'access') await this.refresh(device, { isolate });
  }

  /** A thief has copied the newest refresh token, and uses it. @returns the access token that it brings */
  async steal(device: Device, { isolate }: Options): Promise<Token | undefined> {
    device.unsure = true;
    const label = `thief of ${device.label}`;
    const shown = device.refresh.text;
    const outcome = await this.#showRefresh(device, device.refresh, isolate, undefined, label);
    if (outcome.lost || outcome.exchange.status !== 200) return undefined;
    this.#world.model.accepted(outcome.exchange, device, device.refresh, 'refresh');
    const access = { text: String(outcome.body['access_token']), issuedMs: this.#now };
    device.copies.push(access);
    // While Redis or D1 is away nothing rotates, or nothing is recorded.
    const { degraded, isolate: by } = outcome.exchange;
    if (degraded === '') device.stolen = { shown, access, by, restoredMs: device.account.restoredMs };
    return access;
  }

  /** The device has shown the refresh token that a thief had shown before: the thief's access token has ended. */
  #findOut(device: Device, used: Token, { degraded, sentMs, isolate }: Exchange): void {
    const { stolen } = device;
    if (stolen?.shown !== used.text || degraded !== '' || stolen.access.issuedMs > sentMs) return;
    device.stolen = undefined;
    // A Redis that has lost the first issue does not know of it, nor does D1 where it did not get the refresh.
    const { by, access, restoredMs } = stolen;
    const { timeline } = this.#world;
    if (timeline.lostData(access.issuedMs - TOLD_MS, this.#now)) {
      const untold = timeline
        .between(access.issuedMs, access.issuedMs + TOLD_MS)
        .some(({ kind }) => kind === 'database');
      if (untold || by.diedAtMs < access.issuedMs + TOLD_MS || restoredMs !== device.account.restoredMs) return;
    }
    const what = `the second issue of a generation to ${device.label}, after its thief,`;
    const ending: Ending = { what, sinceMs: sentMs, ackedMs: this.#now, possible: true, by: isolate };
    device.revoked.set(stolen.access.text, ending);
    this.#world.trace(() => `${what} is acknowledged`);
  }

  /** Passwords that are wrong, one after the other. */
  async guess(account: Account, count: number, { isolate }: Options): Promise<void> {
    const identity = `guesser of ${account.email}`;
    for (let index = 0; index < count; index += 1) {
      const body = { email: account.email, password: `wrong guess ${index}` };
      const call = { label: identity, isolate, method: 'POST', path: '/v1/auth/login', body, address: '192.0.2.66' };
      const outcome = await this.call(call);
      if (outcome.lost) continue;
      if (outcome.exchange.status === 401) this.#world.model.admitted(outcome.exchange, 'login', identity);
    }
  }

  /** One request, once, whatever comes back. */
  async call(call: Call, account?: Account): Promise<Outcome> {
    const outcome = await this.#world.call(call);
    if (!outcome.lost) this.#world.model.seen(outcome.exchange, account);
    return outcome;
  }

  #showRefresh(device: Device, token: Token, isolate: number, lose?: Loss, label = device.label): Promise<Outcome> {
    const body = { refresh_token: token.text };
    return this.call({ label, isolate, lose, method: 'POST', path: '/v1/auth/refresh', body }, device.account);
  }

  /** A login has brought the tokens of a new session. */
  newDevice(account: Account, answer: Answer, sentMs: number): Device {
    const device = new Device(account, `${account.email}/${account.devices.length + 1}`);
    device.firstSentMs = sentMs;
    device.firstIssuedMs = this.#now;
    account.devices.push(device);
    this.#keep(device, answer);
    return device;
  }

  /** Keeps the two tokens of a response together. */
  #keep(device: Device, { body }: { body: Record<string, unknown>; exchange: Exchange }): void {
    const issuedMs = this.#now;
    device.access = { text: String(body['access_token']), issuedMs };
    device.refresh = { text: String(body['refresh_token']), issuedMs };
    device.copies.push(device.access);
    device.sessionId = claimsOf(device.access.text).sid;
  }

  /** After a change that answers with new tokens. */
  keep(device: Device, answer: Answer): void {
    this.#keep(device, answer);
  }

  #isolate(index: number) {
    return this.#world.isolates[index]!;
  }

  get #now(): number {
    return this.#world.scheduler.nowMs;
  }
}

export const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { sid: string; role: string };

/** `undefined` while a change of it is under way. */
const roleOf = ({ role, roleSure }: Account) => (roleSure ? role : undefined);
