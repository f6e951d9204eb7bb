import { BOUNDS } from './bounds.ts';
import type { Isolate } from './isolate.ts';

export type DisturbanceKind =
  /** Redis replies to no call. */
  | 'away'
  /** Some calls are lost, late, or answered by something else. */
  | 'unclear'
  /** Redis itself refuses to serve. */
  | 'state'
  /** Redis refuses single commands: those that deliver revocations, or others. */
  | 'refusal'
  | 'refusal-elsewhere'
  /** One shard is down. */
  | 'shard'
  /** Redis has lost its data. */
  | 'flush'
  /** Redis has gone back to an earlier state. */
  | 'restore'
  /** One call was late or lost. */
  | 'network'
  /** D1 fails, or is late. */
  | 'database';

export interface Disturbance {
  readonly kind: DisturbanceKind;
  readonly fromMs: number;
  toMs: number;
  readonly shard?: number | undefined;
}

/** In which state of Redis a change need not be in force yet, and until when. */
export interface Excuse {
  state:
    | 'own'
    | 'up'
    | 'away'
    | 'flushed'
    | 'trusted'
    | 'recovered'
    | 'recovered, its isolate dead'
    | 'restored'
    | 'refused';
  untilMs: number;
}

/** A cron run that has come to its end. */
export interface CronRun {
  readonly fromMs: number;
  readonly toMs: number;
}

/** After the last call that was sent during a disturbance has been given up, it is over for good. */
const TAIL_MS = 2_100;

/** What is committed while an isolate is about to close its breaker is delivered by the one that committed it. */
const SETTLING_MS = 100;

/** What opens breakers. */
const OUTAGES: ReadonlySet<DisturbanceKind> = new Set(['away', 'unclear', 'state', 'shard', 'network']);

/** Everything that was out of order, and when: what excuses a late effect. */
export class Timeline {
  readonly disturbances: Disturbance[] = [];
  readonly crons: CronRun[] = [];

  begin(kind: DisturbanceKind, fromMs: number, shard?: number): Disturbance {
    const disturbance = { kind, fromMs, toMs: Number.POSITIVE_INFINITY, shard };
    this.disturbances.push(disturbance);
    return disturbance;
  }

  note(kind: DisturbanceKind, fromMs: number, toMs: number, shard?: number): void {
    this.disturbances.push({ kind, fromMs, toMs, shard });
  }

  /** What was out of order between two times, for keys of a shard. */
  between(fromMs: number, toMs: number, shard?: number): Disturbance[] {
    return this.disturbances.filter(
      (one) =>
        one.fromMs <= toMs &&
        one.toMs + TAIL_MS >= fromMs &&
        (one.shard === undefined || shard === undefined || one.shard === shard),
    );
  }

  /**
   * Whether Redis was in order between two times, for long enough that every breaker has noticed.
   *
   * @param ignored kinds that do not count
   */
  calm(fromMs: number, toMs: number, shard?: number, ignored: readonly DisturbanceKind[] = ['database']): boolean {
    return this.between(fromMs - BOUNDS.breakerMs, toMs, shard).every(({ kind }) => ignored.includes(kind));
  }

  /** When all outages of Redis that began until then were over, for keys of a shard; `-Infinity`: there was none. */
  endedMs(untilMs: number, shard?: number): number {
    const outages = this.between(Number.NEGATIVE_INFINITY, untilMs, shard).filter(({ kind }) => OUTAGES.has(kind));
    return Math.max(Number.NEGATIVE_INFINITY, ...outages.map(({ toMs }) => toMs + TAIL_MS));
  }

  /** Since when Redis has replied to no call; `Infinity`: it does. */
  awaySince(atMs: number): number {
    const away = this.disturbances.filter(
      ({ kind, fromMs, toMs }) => kind === 'away' && fromMs <= atMs && toMs >= atMs,
    );
    return Math.min(Number.POSITIVE_INFINITY, ...away.map(({ fromMs }) => fromMs + TAIL_MS));
  }

  /**
   * Until when a change that was asked for at `sinceMs` and acknowledged at `ackedMs` may be without effect in another
   * isolate, as a request between `atMs` and `untilMs` sees it.
   *
   * @param awayMs the bound while Redis is away
   */
  excuse(
    { sinceMs, ackedMs, by }: { sinceMs: number; ackedMs: number; by: Isolate },
    awayMs: number,
    { atMs, untilMs }: { atMs: number; untilMs: number },
    shard?: number,
  ): Excuse {
    // A breaker that an earlier outage opened may keep the isolate that makes the change from telling Redis.
    const found = this.between(sinceMs - BOUNDS.breakerMs, untilMs, shard);
    const redis = found.filter(({ kind, toMs }) => kind !== 'database' && !(kind === 'flush' && toMs < sinceMs));
    if (redis.length === 0) return { state: 'up', untilMs: ackedMs + BOUNDS.upMs };
    if (redis.every(({ kind }) => kind === 'flush')) return { state: 'flushed', untilMs: ackedMs + BOUNDS.upMs };
    const ongoing = redis.filter(({ toMs }) => toMs + TAIL_MS >= atMs);
    if (ongoing.length > 0) {
      const throughout = ongoing.some(
        (one) => one.kind === 'away' && one.fromMs + TAIL_MS < sinceMs && one.toMs >= untilMs,
      );
      return { state: 'away', untilMs: throughout ? ackedMs + awayMs : Number.POSITIVE_INFINITY };
    }
    const lastMs = Math.max(ackedMs, ...found.filter(({ toMs }) => toMs < atMs).map(({ toMs }) => toMs + TAIL_MS));
    const cronMs = this.firstCronAfter(lastMs, shard) + BOUNDS.afterCronMs;
    if (redis.some(({ kind, toMs }) => kind === 'restore' && toMs >= sinceMs))
      return { state: 'restored', untilMs: cronMs };
    // A message that Redis refuses waits for a later run, and may just not be due at the first one.
    if (redis.some(({ kind }) => kind === 'refusal' || kind === 'refusal-elsewhere'))
      return { state: 'refused', untilMs: this.firstCronAfter(cronMs, shard) + BOUNDS.afterCronMs };
    if (by.diedAtMs <= lastMs + BOUNDS.recoveredMs) return { state: 'recovered, its isolate dead', untilMs: cronMs };
    // It delivers with the first request that it serves after Redis is back.
    const servedMs = by.servedAtMs.find((ms) => ms >= lastMs) ?? Number.POSITIVE_INFINITY;
    return { state: 'recovered', untilMs: Math.min(cronMs, servedMs + BOUNDS.recoveredMs) };
  }

  /**
   * Whether an isolate has trusted a recovered Redis since a change was acknowledged: before that it delivers what the
   * outbox holds, whatever other isolates do.
   */
  trusted(
    { ackedMs }: { ackedMs: number },
    { trustedAtMs }: { trustedAtMs: number },
    untilMs: number,
    shard?: number,
  ): boolean {
    const slow = this.between(trustedAtMs - TAIL_MS, trustedAtMs).some(({ kind }) => kind === 'database');
    if (ackedMs + (slow ? 2 * TAIL_MS : SETTLING_MS) > trustedAtMs) return false;
    return this.disturbances.every(
      ({ kind, fromMs, toMs, shard: its }) =>
        kind === 'database' ||
        kind === 'flush' ||
        toMs < trustedAtMs ||
        fromMs > untilMs ||
        (its !== undefined && its !== shard),
    );
  }

  /** Whether Redis has lost data between two times, D1's recovery aside. */
  lostData(fromMs: number, toMs: number): boolean {
    return this.disturbances.some(
      ({ kind, fromMs: atMs }) => (kind === 'flush' || kind === 'restore') && atMs >= fromMs && atMs <= toMs,
    );
  }

  /** When a cron run has ended during which all was in order that concerns this shard. */
  firstCronAfter(ms: number, shard?: number): number {
    const undisturbed = this.crons.filter(
      ({ fromMs, toMs }) => fromMs >= ms && this.between(fromMs, toMs, shard).every(({ kind }) => kind === 'flush'),
    );
    return Math.min(Number.POSITIVE_INFINITY, ...undisturbed.map(({ toMs }) => toMs));
  }
}
