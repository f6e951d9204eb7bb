import { describeError, log } from '../config/log';
import { DatabaseUnavailable } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import type { OutboxService } from './outbox.service';

/** Always closed, scores nothing: for the one caller that finds out whether Redis is back. */
export const UNGUARDED: Breaker = {
  state: 'closed',
  ticket: () => 0,
  record: () => undefined,
  claimProbe: () => undefined,
  probed: () => undefined,
  claimLook: () => false,
  lookFailed: () => undefined,
};

/** Since when this isolate's probes have found the database away. */
export interface DatabaseGone {
  sinceMs: number | undefined;
}

/** What a probe may take in all, the delivery of a backlog included. */
export const PROBE_MS = 20_000;

/** A database that has been away for so long is not waited for any more, in milliseconds. */
export const DATABASE_GONE_MS = 30_000;

export interface ProbeDeps {
  breaker: Breaker;
  batch: RedisBatch;
  outbox: Pick<OutboxService, 'deliverPending'>;
  databaseGone: DatabaseGone;
  now: () => number;
}

/**
 * Asks Redis whether it is there, and delivers what it missed. The breaker stays open while something undelivered is known,
 * or while the database could not be asked for it. Only when the database has been away for {@link DATABASE_GONE_MS}, at
 * every probe, does the breaker close without it: otherwise nothing could be asked about revocations. This isolate refuses
 * what it has revoked itself; the rest is delivered once the database is back.
 */
export async function probe(number: number, { breaker, batch, outbox, databaseGone, now }: ProbeDeps): Promise<void> {
  try {
    await batch.send('PING');
    await outbox.deliverPending();
    databaseGone.sinceMs = undefined;
  } catch (error) {
    if (error instanceof DatabaseUnavailable) databaseGone.sinceMs ??= now();
    else databaseGone.sinceMs = undefined;
    if (databaseGone.sinceMs === undefined || now() - databaseGone.sinceMs < DATABASE_GONE_MS) {
      breaker.probed(number, false);
      log('warn', 'redis.probe_failed', describeError(error));
      return;
    }
    log('warn', 'redis.available_undelivered', describeError(error));
  }
  breaker.probed(number, true);
  log('info', 'redis.available');
}

/** After failed calls that did not open the breaker: delivers what Redis missed, and again what it has lost. */
export async function look({ breaker, outbox }: Pick<ProbeDeps, 'breaker' | 'outbox'>): Promise<void> {
  try {
    await outbox.deliverPending();
  } catch (error) {
    breaker.lookFailed();
    log('warn', 'redis.look_failed', describeError(error));
  }
}
