import { asc, count, min, sql } from 'drizzle-orm';

import type { Config } from '../config/env';
import { DatabaseUnavailable } from '../db/client';
import type { Database } from '../db/client';
import { outbox } from '../db/schema';
import { DEFINITIONS } from '../metrics/definitions';
import { CONTENT_TYPE, writeText } from '../metrics/prometheus';
import type { Sample } from '../metrics/prometheus';
import type { Instruments } from '../metrics/instruments';
import type { Meters } from '../metrics/meters';
import type { Lot, Outbound } from '../metrics/outbound';
import { addCounts } from '../metrics/registry';
import type { Counts } from '../metrics/registry';
import type { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import type { Argument, Command, RedisValue } from '../redis/client';
import { RedisError, RedisUnavailable } from '../redis/errors';
import type { Keys } from '../redis/keys';
import { MAX_SERIES, metricsAdd } from '../redis/scripts/metricsAdd';
import type { Shards } from '../redis/shards';
import { historyOf, historyOfLots, windowOf } from './metrics/history';
import type { History } from './metrics/history';
import { COARSE, FINE, placeOf, ttlMsOf } from './metrics/steps';
import type { Range } from './metrics/steps';
import { describeSeries, readTotals } from './metrics/totals';
import type { Totals } from './metrics/totals';
import { facade } from './scope';

export type { History, HistorySeries } from './metrics/history';
export { RANGES } from './metrics/steps';
export type { Range } from './metrics/steps';
export type { Totals, TotalSeries } from './metrics/totals';

export interface OutboxState {
  /** At most {@link MOST_PENDING}. */
  pending: number;
  oldestAgeSeconds: number;
}

/** The present state according to the responding isolate. */
export interface MetricsState {
  isolate: string;
  redis: 'up' | 'down';
  breaker: Breaker['state'];
  shardsOut: number;
  database: 'up' | 'down';
  /** `undefined` while the database is away. */
  outbox: OutboxState | undefined;
  mailer: Config['mail']['mailer'];
  /** Isolates that have reported within the last minute; `undefined` while Redis is away. */
  isolates: number | undefined;
}

export interface Overview {
  /** `isolate`: Redis is away, and the series contain only this isolate's unreported counts. */
  source: 'redis' | 'isolate';
  history: History;
  state: MetricsState;
}

/** The measurements of all isolates, added up in Redis. */
export interface MetricsService {
  /** Counts a guard's decision: `ok`, or the error code of its refusal. */
  guarded(code: string): void;
  /** Call once a response is ready: if a report is due, sends this isolate's counts with the other deferred commands. */
  report(): void;
  /** The counts of all isolates, including this one. One trip. @throws {RedisError} */
  totals(): Promise<Totals>;
  /**
   * {@link totals} in Prometheus's text format. Without Redis, this isolate's unreported counts, with a label that names
   * the isolate. So Prometheus does not take them for the totals after a reset.
   */
  prometheus(): Promise<{ text: string; contentType: string }>;
  /** A time series and the current state. @param sinceMs omits steps that end before this time */
  overview(range: Range, sinceMs?: number): Promise<Overview>;
  /** For the cron trigger: reads the state of the outbox, which is sent with the next report. */
  observeOutbox(): Promise<void>;
}

declare module './scope' {
  interface ServiceMap {
    metrics: MetricsService;
  }
}

export const MetricsService: MetricsService = facade('metrics');

/** The limit for counting undelivered messages. */
export const MOST_PENDING = 10_000;

const TOTALS_TTL_MS = 30 * 86_400_000;
/** Longer than an isolate keeps trying to report one lot. */
const ISOLATE_KEPT_MS = 2 * 3_600_000;
const RECENT_MS = 60_000;
const OUTBOX_MEMO_MS = 2_000;

export interface MetricsDeps {
  batch: RedisBatch;
  database: Database;
  outbound: Outbound;
  instruments: Pick<Instruments, 'guardOutcomes'>;
  memo: Meters['memo'];
  breaker: Breaker;
  shards: Pick<Shards, 'outCount'>;
  keys: Keys;
  config: Config;
  now: () => number;
}

export function createMetricsService(deps: MetricsDeps): MetricsService {
  const { batch, database, outbound, memo, breaker, shards, keys, config, now, instruments } = deps;

  function argumentsFor({ seq, atMs, counts }: Lot, gauges: ReadonlyMap<string, number>): [string[], Argument[]] {
    const [fine, coarse] = [placeOf(FINE, atMs), placeOf(COARSE, atMs)];
    return [
      [keys.metrics, keys.metricsSteps(FINE.stepMs, fine.chunk), keys.metricsSteps(COARSE.stepMs, coarse.chunk)],
      [
        outbound.id,
        seq,
        atMs,
        fine.step,
        coarse.step,
        TOTALS_TTL_MS,
        ttlMsOf(FINE),
        ttlMsOf(COARSE),
        ISOLATE_KEPT_MS,
        MAX_SERIES,
        JSON.stringify(counts),
        ...[...gauges].flat(),
      ],
    ];
  }

  /** Sends the unreported counts, and handles the outcome of each lot. */
  function send(run: (keys: string[], args: Argument[]) => Promise<RedisValue>): void {
    const atMs = now();
    const lots = outbound.take(atMs);
    if (lots.length === 0) return;
    const sent = lots.map(async (lot) => {
      try {
        const reply = await run(...argumentsFor(lot, memo.gauges));
        if (reply === 1 || reply === 0) outbound.settle(lot);
      } catch (error) {
        if (!(error instanceof RedisError)) throw error;
        if (!(error instanceof RedisUnavailable)) outbound.drop(lot, 'refused');
        else if (error.reason === 'breaker') outbound.keep(lot, atMs);
      }
    });
    void Promise.all(sent).finally(() => outbound.release());
  }

  /**
   * Sends the script's text: for a server that does not know the script, a second trip would be needed, and totals would be
   * read before it.
   */
  const sendNow = () => {
    const { text } = config.redis.keyLocking ? metricsAdd.locking : metricsAdd;
    send((names, args) => batch.send('EVAL', text, names.length, ...names, ...args));
  };

  async function outboxState(): Promise<OutboxState | undefined> {
    const atMs = now();
    if (memo.outbox !== undefined && Math.abs(atMs - memo.outbox.atMs) < OUTBOX_MEMO_MS) return memo.outbox.state;
    let state: OutboxState | undefined;
    try {
      const [row] = await database.run((db) => {
        const some = db
          .select({ createdAtMs: outbox.createdAtMs })
          .from(outbox)
          // A literal, so that the query uses the partial index.
          .where(sql`${outbox.state} = 'pending'`)
          .orderBy(asc(outbox.dueAtMs), asc(outbox.seq))
          .limit(MOST_PENDING)
          .as('some');
        return db.select({ pending: count(), oldestMs: min(some.createdAtMs) }).from(some);
      });
      const { pending = 0, oldestMs = null } = row ?? {};
      state = { pending, oldestAgeSeconds: oldestMs === null ? 0 : Math.max(0, Math.round((atMs - oldestMs) / 1_000)) };
    } catch (error) {
      if (!(error instanceof DatabaseUnavailable)) throw error;
    }
    memo.outbox = { atMs, state };
    return state;
  }

  async function overviewOf(
    range: Range,
    sinceMs: number | undefined,
  ): Promise<[Overview['source'], History, number?]> {
    const nowMs = now();
    const window = windowOf(keys, range, { nowMs, ...(sinceMs !== undefined && { sinceMs }) });
    sendNow();
    try {
      const ask = (command: Command) => batch.send(...command);
      const [all, ...steps] = await Promise.all([ask(['HGETALL', keys.metrics]), ...window.commands.map(ask)]);
      const totals = readTotals(all ?? null);
      const recent = totals.isolates.filter((reportedMs) => nowMs - reportedMs < RECENT_MS);
      return ['redis', historyOf(window, steps, totals), recent.length];
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      return ['isolate', historyOfLots(window, outbound.pending)];
    }
  }

  async function samplesOfAll(): Promise<Sample[]> {
    const { series, isolates, gauges, leftOut } = await service.totals();
    const nowMs = now();
    const recent = isolates.filter((reportedMs) => nowMs - reportedMs < RECENT_MS).length;
    const samples = [...series, ...gaugeSamples(gauges), gauge('isolates', recent), gauge('complete', 1)];
    if (leftOut > 0) {
      samples.push({ definition: DEFINITIONS.dropped, labels: { 'gatehouse.reason': 'series' }, values: [leftOut] });
    }
    return samples;
  }

  async function samplesOfIsolate(): Promise<Sample[]> {
    const counts: Counts = {};
    for (const lot of outbound.pending) addCounts(counts, lot.counts);
    const samples = Object.entries(counts).flatMap(([id, values]): Sample[] => {
      const { definition, labels } = describeSeries(id) ?? {};
      if (definition === undefined) return [];
      return [{ definition, labels: { ...labels, 'gatehouse.isolate': outbound.id }, values }];
    });
    // The outbox is in the database, which may be available.
    const messages = await outboxState();
    if (messages !== undefined) samples.push(...gaugeSamples(gaugesOf(messages)));
    return [...samples, gauge('complete', 0)];
  }

  const service: MetricsService = {
    guarded: (code) => instruments.guardOutcomes.count(code),

    report() {
      if (outbound.isDue(now())) send((names, args) => batch.deferRun(metricsAdd, names, args));
    },

    async totals() {
      sendNow();
      return readTotals(await batch.send('HGETALL', keys.metrics));
    },

    async prometheus() {
      const samples = await samplesOfAll().catch(async (error: unknown) => {
        if (!(error instanceof RedisError)) throw error;
        return await samplesOfIsolate();
      });
      return { text: writeText(samples), contentType: CONTENT_TYPE };
    },

    async overview(range, sinceMs) {
      const [[source, history, isolates], messages] = await Promise.all([overviewOf(range, sinceMs), outboxState()]);
      return {
        source,
        history,
        state: {
          isolate: outbound.id,
          redis: source === 'redis' ? 'up' : 'down',
          breaker: breaker.state,
          shardsOut: shards.outCount,
          database: messages === undefined ? 'down' : 'up',
          outbox: messages,
          mailer: config.mail.mailer,
          isolates,
        },
      };
    },

    async observeOutbox() {
      memo.outbox = undefined;
      const state = await outboxState();
      if (state === undefined) return;
      for (const [name, value] of gaugesOf(state)) memo.gauges.set(name, value);
    },
  };
  return service;
}

const gauge = (name: keyof typeof DEFINITIONS, value: number): Sample => ({
  definition: DEFINITIONS[name],
  labels: {},
  values: [value],
});

/** Gauges by the name of their instrument, in the order of the definitions. */
function gaugeSamples(gauges: ReadonlyMap<string, number>): Sample[] {
  return Object.values(DEFINITIONS).flatMap((definition): Sample[] => {
    const value = gauges.get(definition.name);
    return value === undefined ? [] : [{ definition, labels: {}, values: [value] }];
  });
}

const gaugesOf = ({ pending, oldestAgeSeconds }: OutboxState): Map<string, number> =>
  new Map([
    ['gatehouse.outbox.pending', pending],
    ['gatehouse.outbox.oldest_age', oldestAgeSeconds],
  ]);
