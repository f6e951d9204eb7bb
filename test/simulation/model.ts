import {
  BOUNDS,
  CALM_DATABASE_DEADLINES,
  CALM_READ_MS,
  CLIENT_TIMEOUT_MS,
  DEADLINES,
  DEADLINE_SLACK_MS,
  READ_DATABASE_TRIPS,
} from './bounds.ts';
import type { LimitName } from './bounds.ts';
import type { DatabaseKind } from './database.ts';
import type { Exchange } from './exchange.ts';
import type { Invocation, Isolate } from './isolate.ts';
import { Limits } from './limits.ts';
import { Locks } from './locks.ts';
import { shardOf } from './redis.ts';
import type { Excuse, Timeline } from './timeline.ts';

/** States of Redis, as violations name them. */
export type JudgedState = Excuse['state'] | 'refresh';

const STATES: Record<JudgedState, string> = {
  refresh: 'the database was asked',
  own: 'by the isolate that acknowledged it',
  up: 'Redis up all the time',
  away: 'Redis away',
  flushed: 'Redis up, but flushed',
  recovered: 'Redis up again',
  trusted: 'the isolate has logged that everything is delivered, and trusts Redis again',
  'recovered, its isolate dead': 'Redis up again; the isolate that acknowledged it has died',
  restored: 'Redis went back in time, and a cron run has been since',
  refused: 'Redis refused the delivery, and two cron runs have been since',
};

export type Invariant =
  /** Something whose end was acknowledged is accepted after its bound. */
  | 'revocation'
  /** An honest client is sent to the login. */
  | 'signed-out'
  /** More was admitted in a window than its limit. */
  | 'limit'
  /** Two hold a lock, or a fence does not grow. */
  | 'lock'
  /** A request with an idempotency key is executed twice, or its repeat gets something else. */
  | 'once'
  /** A value whose invalidation was acknowledged is served after its bound. */
  | 'stale'
  /** The outbox does not drain. */
  | 'outbox'
  /** A request waits longer than its deadline. */
  | 'deadline'
  /** A request costs more calls than stated. */
  | 'cost'
  /** A request notices an outage that does not concern it. */
  | 'spill'
  /** Redis holds something personal of an account that was deleted. */
  | 'personal'
  /** A response of 500, one of 503 with everything in order, or an error that nothing handles. */
  | 'fault';

export interface Violation {
  invariant: Invariant;
  /** In which state of Redis, where that matters: a shrunk plan fails in the same one. */
  state?: JudgedState;
  atMs: number;
  text: string;
}

/** A change that ends tokens. */
export interface Ending {
  readonly what: string;
  readonly sinceMs: number;
  ackedMs: number;
  /** `false` once it is known that it was not made. */
  possible: boolean;
  readonly by: Isolate;
  /** The session that goes on. */
  readonly except?: Device;
}

/** A value that was written. */
export interface Write {
  readonly value: string;
  readonly sinceMs: number;
  ackedMs: number;
  readonly by: Isolate;
}

export interface Token {
  readonly text: string;
  /** When the response arrived that it came with. */
  readonly issuedMs: number;
}

export class Account {
  readonly email: string;
  id = '';
  password: string;
  /** `false` while a change of the password may or may not have been made. */
  passwordSure = true;
  role: 'user' | 'admin' = 'user';
  /** `false` while a change of the role may or may not have been made. */
  roleSure = true;
  /** End every session that had begun before them. */
  readonly endings: Ending[] = [];
  /** End access tokens that were issued before them; the session goes on. */
  readonly supersedings: Ending[] = [];
  readonly names: Write[] = [];
  /** When a recovery of D1 took it back: its name may be any that it had before. */
  restoredMs: number | undefined;
  /** What D1 and Redis have both lost: versions that were raised in this time. */
  forgotten: { fromMs: number; toMs: number } | undefined;
  /** Its deletion, once that is acknowledged. */
  deleted: Ending | undefined;
  /** Whether the account is disabled or deleted, or may be. */
  closed = false;
  readonly devices: Device[] = [];

  constructor(email: string, password: string) {
    this.email = email;
    this.password = password;
  }

  get shard(): number {
    return shardOf(`{${this.id}}`);
  }
}

/** A device with its session, as the client holds it. */
export class Device {
  readonly account: Account;
  readonly label: string;
  sessionId = '';
  access: Token = { text: '', issuedMs: 0 };
  refresh: Token = { text: '', issuedMs: 0 };
  readonly endings: Ending[] = [];
  /** Every access token that it ever had: a thief may have copied any of them. */
  readonly copies: Token[] = [];
  /** Refresh tokens that it had before it changed the password: a thief may have copied one. */
  readonly retired: { token: Token; ending: Ending }[] = [];
  /** Ends of single access tokens, by their text. */
  readonly revoked = new Map<string, Ending>();
  /** A thief uses its refresh token, or a change of the password was left open: its session may have ended. */
  unsure = false;
  /** What a thief got for its refresh token, until the device shows the same one. */
  stolen: { shown: string; access: Token; by: Isolate; restoredMs: number | undefined } | undefined;
  signedOut = false;
  /** D1 was taken back to a moment before this session began, and does not know it. */
  forgotten = false;
  refreshing: Promise<boolean> | undefined;

  constructor(account: Account, label: string) {
    this.account = account;
    this.label = label;
  }

  /** What ends this session, acknowledged or only asked for. */
  *ends(): Generator<Ending> {
    yield* this.endings;
    for (const ending of this.account.endings) {
      if (this.firstIssuedMs <= ending.sinceMs && ending.except !== this) yield ending;
    }
  }

  /** When its login was sent, and when its first tokens arrived. */
  firstSentMs = Number.POSITIVE_INFINITY;
  firstIssuedMs = Number.POSITIVE_INFINITY;
}

/** What is known to be true, and what is wrong with what was seen. */
export class Model {
  readonly violations: Violation[] = [];
  readonly #timeline: Timeline;
  readonly #rememberedMs: number;
  readonly #clocksMs: number;
  readonly #calmReadMs: number;
  readonly limits: Limits;
  readonly locks: Locks;
  /** The faults are over, and everything acknowledged must be in force. */
  final = false;

  /**
   * @param options `rememberedMs`: for how long a read may go by what Redis said; 0: each asks. `clocksMs`: by how much an isolate's
   *   clock may be wrong about a minute
   */
  constructor(
    timeline: Timeline,
    { rememberedMs, clocksMs, database }: { rememberedMs: number; clocksMs: number; database: DatabaseKind },
  ) {
    this.#timeline = timeline;
    this.#rememberedMs = rememberedMs;
    this.#clocksMs = clocksMs;
    this.#calmReadMs = CALM_READ_MS[database];
    const violate = (invariant: Invariant) => (atMs: number, text: string) => this.violate(invariant, atMs, text);
    this.limits = new Limits({ timeline, clocksMs, leases: rememberedMs > 0, violate: violate('limit') });
    this.locks = new Locks({ timeline, violate: violate('lock') });
  }

  /** By how much later another isolate's changes count for a read: it may have been decided from memory. */
  #laterMs({ route, isolate }: Exchange, by: Isolate): number {
    return by !== isolate && route.startsWith('GET ') ? this.#rememberedMs : 0;
  }

  violate(invariant: Invariant, atMs: number, text: string, state?: JudgedState): void {
    this.violations.push({ invariant, atMs, text, ...(state !== undefined && { state }) });
  }

  /**
   * Notes what D1 holds, for a recovery that takes it back to this moment.
   *
   * @returns forgets what was made since: sessions and changes of that time may have been lost, or may live on in Redis
   */
  remember(accounts: readonly Account[], savedMs: number): (restoredMs: number) => void {
    const states = accounts.map((account) => {
      const { password, passwordSure, role, closed, deleted } = account;
      return { account, before: { password, passwordSure, role, closed, deleted } };
    });
    return (restoredMs) => {
      this.limits.restoredMs = restoredMs;
      for (const { account, before } of states) {
        // A change of the password that is under way is made after the recovery, or not at all.
        const passwordSure = before.passwordSure && account.passwordSure;
        Object.assign(account, before, { passwordSure });
        account.roleSure = false;
        const lost = (one: { ackedMs: number }) => one.ackedMs >= savedMs;
        for (const ending of [...account.endings, ...account.supersedings].filter(lost)) ending.ackedMs = Infinity;
        // A rename that is under way is made after the recovery, or not at all.
        account.names.splice(0, Infinity, ...account.names.filter(({ ackedMs }) => !Number.isFinite(ackedMs)));
        account.restoredMs = restoredMs;
        if (this.#timeline.lostData(savedMs, restoredMs)) account.forgotten = { fromMs: savedMs, toMs: restoredMs };
        for (const device of account.devices) {
          device.retired.length = 0;
          if (device.firstIssuedMs >= savedMs) device.forgotten = true;
          for (const ending of [...device.endings, ...device.revoked.values()].filter(lost)) ending.ackedMs = Infinity;
          device.unsure = true;
        }
      }
    };
  }

  /** What holds for every response. */
  seen(exchange: Exchange, account?: Account): void {
    const { route, label, sentMs, arrivedMs, servedMs, status, degraded, databaseTrips, isolate } = exchange;
    if (status === 500) this.violate('fault', arrivedMs, `${label} at ${isolate.name} was answered 500`);
    // Without Redis there is no lock, and an isolate that has not served of late may not know that Redis is back.
    const knows = route !== 'POST /v1/own/locks' || this.#isAwake(isolate, sentMs);
    if (status === 503 && knows && this.#timeline.calm(sentMs, arrivedMs, undefined, [])) {
      this.violate('fault', arrivedMs, `${label} at ${isolate.name} was answered 503 with everything in order`);
    }
    const isDatabaseCalm = this.#timeline.between(sentMs, arrivedMs).every(({ kind }) => kind !== 'database');
    const calmMs = isDatabaseCalm ? CALM_DATABASE_DEADLINES[route] : undefined;
    // An isolate waits by its own clock, which the plan may set back.
    const most = (calmMs ?? DEADLINES[route] ?? DEADLINES['*'] ?? 0) + DEADLINE_SLACK_MS + this.#clocksMs;
    if (servedMs > most) this.violate('deadline', arrivedMs, `${label} at ${isolate.name} took ${servedMs} ms`);
    if (route === 'GET /v1/users/me' && databaseTrips > READ_DATABASE_TRIPS) {
      this.violate('cost', arrivedMs, `${label} at ${isolate.name} took ${databaseTrips} trips to the database`);
    }
    if (
      route === 'GET /v1/users/me' &&
      servedMs > this.#calmReadMs &&
      this.#timeline.calm(sentMs, arrivedMs, undefined, [])
    ) {
      this.violate('cost', arrivedMs, `${label} at ${isolate.name} took ${servedMs} ms with everything in order`);
    }
    // After a recovery of D1 a user's first requests find out how far it is behind Redis.
    if (
      account?.restoredMs === undefined &&
      account !== undefined &&
      /revocation=d1|refresh=d1|session=d1/.test(degraded)
    ) {
      if (
        this.#isAwake(isolate, sentMs, { shard: account.shard }) &&
        !isChanging(account, exchange) &&
        this.#timeline.calm(sentMs, arrivedMs, account.shard, ['database', 'refusal-elsewhere'])
      ) {
        this.violate(
          'spill',
          arrivedMs,
          `${label} at ${isolate.name} was degraded (${degraded}) though what it needs of Redis is up`,
        );
      }
    }
  }

  /** A request that has arrived at an isolate got no response for as long as its client waited. */
  unanswered({ isolate, label, route }: Pick<Exchange, 'isolate' | 'label' | 'route'>, atMs: number): void {
    const most = DEADLINES[route] ?? DEADLINES['*'] ?? 0;
    if (most < CLIENT_TIMEOUT_MS) this.violate('deadline', atMs, `${label} at ${isolate.name} had no response`);
  }

  /**
   * D1 is asked about the outbox, or about Redis's age, beside a request: by an isolate that has reason to think that Redis missed
   * something, and that can reach it.
   */
  upkeep({ isRead, isolate, label }: Invocation, atMs: number): void {
    if (!isRead) return;
    const asks = `${isolate.name} [${label}] asks the database about the outbox`;
    if (this.#timeline.calm(atMs, atMs, undefined, []) && this.#isAwake(isolate, atMs, { requests: 3 })) {
      this.violate('cost', atMs, `${asks} with everything in order`);
    } else if (this.#timeline.awaySince(atMs) < isolate.probeFailedAtMs) {
      this.violate('cost', atMs, `${asks} while Redis is away, though its last probe has failed`);
    }
  }

  /**
   * Whether an isolate has served of late: one that has not finds out with its first request that Redis is back (probes of single
   * shards run beside it), sends a command to it again with the next one, and looks with the one after that whether Redis has missed
   * something.
   *
   * A probe asks D1 as well. While D1 is slow or fails, a probe may find out nothing, whatever Redis replies (docs/outages.md: the
   * breaker stays open), so requests count only where D1 was in order from the probe before to the end of their own.
   */
  #isAwake(
    { servedAtMs }: Isolate,
    atMs: number,
    { requests = 1, shard }: { requests?: number; shard?: number } = {},
  ): boolean {
    // A breaker that an outage has opened, of Redis or of a shard, may be due as late as this.
    const dueMs = this.#timeline.endedMs(atMs, shard) + BOUNDS.breakerMs;
    if (!servedAtMs.some((ms) => ms >= dueMs && ms <= atMs - BOUNDS.wakeMs)) return false;
    const databaseFaults = this.#timeline
      .between(atMs - 2 * BOUNDS.breakerMs, atMs)
      .filter(({ kind }) => kind === 'database');
    const couldAsk = (ms: number) =>
      databaseFaults.every(({ fromMs, toMs }) => fromMs > ms + BOUNDS.wakeMs || toMs + BOUNDS.uncheckedMs < ms);
    const untilMs = atMs - BOUNDS.wakeMs;
    const served = servedAtMs
      .filter((ms) => ms >= atMs - BOUNDS.breakerMs && ms <= untilMs && couldAsk(ms))
      .sort((a, b) => a - b);
    // Requests of one moment are served before any of them has found out.
    const moments: number[] = [];
    for (const ms of served) if (ms - (moments.at(-1) ?? -Infinity) > BOUNDS.wakeMs) moments.push(ms);
    return moments.length >= requests;
  }

  /**
   * An access or refresh token was accepted. `renewal`: an access token, by a change of the password whose first response was
   * lost.
   *
   * @param token with which the request was made
   */
  accepted(exchange: Exchange, device: Device, token: Token, kind: 'access' | 'refresh' | 'renewal'): void {
    const { account } = device;
    for (const ending of device.ends()) this.#judge(exchange, ending, account, token);
    const retired = device.retired.find((one) => kind === 'refresh' && one.token.text === token.text);
    if (retired !== undefined) this.#judge(exchange, retired.ending, account, token);
    if (kind === 'refresh') return;
    // Such a request brings new tokens and changes nothing, as a refresh does, so a new role does not stop it: the change has
    // outdated the device's refresh token, and only this keeps it signed in. {@link renewed} looks at the new tokens.
    for (const ending of kind === 'renewal' ? [] : account.supersedings) {
      if (token.issuedMs <= ending.sinceMs) this.#judge(exchange, ending, account, token);
    }
    const revoked = device.revoked.get(token.text);
    if (revoked !== undefined) this.#judge(exchange, revoked, account, token);
  }

  /** A change of the password was repeated. @param role that its tokens have @param known that of the account all the while */
  renewed({ isolate, label, arrivedMs }: Exchange, role: string, known: string): void {
    if (role === known) return;
    this.violate('revocation', arrivedMs, `${label} at ${isolate.name} gave tokens of the role ${role}, not ${known}`);
  }

  #judge(exchange: Exchange, ending: Ending, account: Account, token: Token): void {
    const { isolate, route, label, degraded, sentMs, arrivedMs } = exchange;
    if (!ending.possible || !(ending.ackedMs < sentMs)) return;
    // Only the token itself has versions that D1 and Redis have both lost, until it expires.
    const { forgotten } = account;
    const isForgotten =
      forgotten !== undefined && token.issuedMs >= forgotten.fromMs && token.issuedMs <= forgotten.toMs;
    if (isForgotten && route !== 'POST /v1/auth/refresh') return;
    const { state, untilMs } =
      ending.by === isolate
        ? ({ state: 'own', untilMs: ending.ackedMs } as const)
        : this.#timeline.trusted(ending, isolate, arrivedMs, account.shard)
          ? ({ state: 'trusted', untilMs: isolate.trustedAtMs } as const)
          : (route === 'POST /v1/auth/refresh' && !degraded.includes('refresh=redis')) ||
              route === 'POST /v1/auth/login'
            ? ({ state: 'refresh', untilMs: ending.ackedMs + BOUNDS.refreshMs } as const)
            : this.#excuse(exchange, ending, BOUNDS.awayMs, account);
    if (sentMs <= untilMs + this.#laterMs(exchange, ending.by)) return;
    const since = `${Math.round(sentMs - ending.ackedMs)} ms after ${ending.what} (${STATES[state]})`;
    this.violate('revocation', arrivedMs, `${label} at ${isolate.name} was accepted ${since}`, state);
  }

  #excuse({ sentMs, arrivedMs }: Exchange, change: Write | Ending, awayMs: number, { shard }: Account): Excuse {
    return this.#timeline.excuse(change, awayMs, { atMs: sentMs, untilMs: arrivedMs }, shard);
  }

  /** `getSession` returned a session to the app's own code. */
  lives(exchange: Exchange, device: Device): void {
    for (const ending of device.ends()) this.#judge(exchange, ending, device.account, device.access);
  }

  /** An honest client was answered 401, and not for a token that it may refresh. */
  refused(exchange: Exchange, device: Device): void {
    device.signedOut = true;
    this.livesNot(exchange, device);
  }

  /** A session is said to have ended. */
  livesNot(exchange: Exchange, device: Device): void {
    if (device.unsure) return;
    // A session that began while another ending was under way may be among those that it ended.
    const { endings } = device.account;
    const covered = [
      ...device.ends(),
      ...endings.filter(({ ackedMs, except }) => ackedMs >= device.firstSentMs && except !== device),
    ];
    if (covered.some(({ possible }) => possible)) return;
    const { label, isolate, status, code, arrivedMs } = exchange;
    this.violate('signed-out', arrivedMs, `${label} at ${isolate.name} was answered ${status} ${code}`);
  }

  /** A user's name was served. */
  served(exchange: Exchange, account: Account, value: string): void {
    const { isolate, label, sentMs, arrivedMs } = exchange;
    const write = account.names.find((one) => one.value === value);
    if (write === undefined && account.restoredMs === undefined) {
      this.violate('stale', arrivedMs, `${label} at ${isolate.name} shows the name ${value}, which was never written`);
      return;
    }
    const { ackedMs = account.restoredMs ?? 0, sinceMs = 0 } = write ?? {};
    // A write whose response was lost may have been made any time until its client has given up.
    const madeMs = Number.isFinite(ackedMs) ? ackedMs : sinceMs + PATIENCE_MS;
    for (const later of account.names) {
      if (later.sinceMs <= madeMs || !(later.ackedMs < sentMs)) continue;
      const { state, untilMs } = this.#excuse(exchange, later, BOUNDS.cacheAwayMs, account);
      // Entries that its guard does not name are read from Redis in any case.
      const laterMs = exchange.route.endsWith('/me') ? this.#laterMs(exchange, later.by) : 0;
      if (sentMs <= untilMs + laterMs) continue;
      const since = `${Math.round(sentMs - later.ackedMs)} ms after ${later.value} was acknowledged (${STATES[state]})`;
      this.violate('stale', arrivedMs, `${label} at ${isolate.name} shows ${value}, ${since}`, state);
      return;
    }
  }

  /** A list of users was served. */
  listed(exchange: Exchange, accounts: readonly Account[], items: readonly { id: string; name: string }[]): void {
    for (const { id, name } of items) {
      const account = accounts.find((one) => one.id === id);
      if (account === undefined) continue;
      this.served(exchange, account, name);
      this.#goneFrom(exchange, account);
    }
  }

  #goneFrom(exchange: Exchange, account: Account): void {
    const { isolate, label, sentMs, arrivedMs } = exchange;
    const { deleted, email } = account;
    if (deleted === undefined || !(deleted.ackedMs < sentMs)) return;
    const { state, untilMs } = this.#excuse(exchange, deleted, BOUNDS.cacheAwayMs, account);
    if (sentMs <= untilMs) return;
    const since = `${Math.round(sentMs - deleted.ackedMs)} ms after its deletion (${STATES[state]})`;
    this.violate('stale', arrivedMs, `${label} at ${isolate.name} shows ${email}, ${since}`, state);
  }

  /** A limiter has admitted a request. @param identity that it counts */
  admitted(exchange: Exchange, limit: LimitName, identity: string): void {
    const { isolate, sentMs, degraded } = exchange;
    // An isolate that has not served since Redis was away counts by itself until it knows better.
    const alone = degraded.includes('limiter=local') && !this.#isAwake(isolate, sentMs);
    this.limits.admitted(exchange, limit, identity, alone);
  }
}

/** Four tries, and a pause of at most 5 s after each. */
const PATIENCE_MS = 80_000;

/**
 * Whether versions of the account were raised beside a request: D1 has each new one before Redis, so a refresh that meets two of them
 * goes by D1.
 */
function isChanging({ endings, supersedings }: Account, { sentMs, arrivedMs }: Exchange): boolean {
  const longestMs = DEADLINES['*'] ?? 0;
  return [...endings, ...supersedings].some(
    ({ sinceMs, ackedMs }) => sinceMs <= arrivedMs && sinceMs >= sentMs - longestMs && ackedMs >= sentMs,
  );
}
