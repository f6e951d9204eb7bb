import { describeError, log } from '../config/log';
import { DatabaseUnavailable } from '../db/client';
import type { RedisBatch } from '../redis/batch';
import type { Breaker } from '../redis/breaker';
import type { OutboxService } from './outbox.service';

/** A breaker that is always closed and scores nothing: for probes. */
export const UNGUARDED: Breaker = {
  state: 'closed',
  ticket: () => 0,
  record: () => undefined,
  takeProbe: () => undefined,
  probed: () => undefined,
  takeLook: () => false,
  lookFailed: () => undefined,
  owe: () => undefined,
  takeWatch: () => false,
};

/** Since when all probes of this isolate have found the database away. */
export interface DatabaseGone {
  sinceMs: number | undefined;
}

/** The longest duration of a probe, including the delivery of a backlog. */
export const PROBE_MS = 20_000;

/** After the database has been away for this time, in milliseconds, probes no longer wait for it. */
export const DATABASE_GONE_MS = 30_000;

export interface ProbeDeps {
  breaker: Breaker;
  batch: RedisBatch;
  outbox: Pick<OutboxService, 'deliverPending'>;
  databaseGone: DatabaseGone;
  now: () => number;
}

/**
 * Checks whether Redis is back, and delivers the messages that it missed. The breaker stays open while undelivered messages
 * are known, or while the database cannot be asked for them. Exception: when every probe for {@link DATABASE_GONE_MS} has
 * found the database away, the breaker closes without it, because otherwise no revocation could be checked at all. This
 * isolate still refuses tokens that it has revoked itself; the other messages are delivered once the database is back.
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
      breaker.probed(number, databaseGone.sinceMs === undefined ? 'away' : 'unchecked');
      log('warn', 'redis.probe_failed', describeError(error));
      return;
    }
    log('warn', 'redis.available_undelivered', describeError(error));
  }
  breaker.probed(number, 'back');
  log('info', 'redis.available');
}

/** After failed calls that did not open the breaker: delivers messages that Redis missed or has lost. */
export async function look({ breaker, outbox }: Pick<ProbeDeps, 'breaker' | 'outbox'>): Promise<void> {
  try {
    await outbox.deliverPending({ whileClosed: true });
  } catch (error) {
    breaker.lookFailed();
    log('warn', 'redis.look_failed', describeError(error));
  }
}
