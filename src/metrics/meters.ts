import type { TripObserver } from '../redis/trip';
import { SYSTEM_NAME } from '#db';
import { createInstruments, observerOf } from './instruments';
import type { CallObserver, Instruments } from './instruments';
import { Outbound } from './outbound';

/** Log lines of one event in the current window. */
export interface RefusalBudget {
  sinceMs: number;
  lines: number;
  leftOut: number;
}

/** An isolate's instruments, and the counts that it has not reported yet: plain data. */
export interface Meters {
  instruments: Instruments;
  outbound: Outbound;
  observeRedis: TripObserver;
  observeDatabase: CallObserver;
  /** Key: the event. */
  refusals: Map<string, RefusalBudget>;
  memo: {
    /** Gauges to report, by name. */
    gauges: Map<string, number>;
    outbox: { atMs: number; state: { pending: number; oldestAgeSeconds: number } | undefined } | undefined;
  };
}

export function createMeters({ intervalMs, nowMs }: { intervalMs: number; nowMs: number }): Meters {
  const instruments = createInstruments();
  const observePipeline = observerOf(instruments, 'redis', 'PIPELINE');
  const { redisCommands } = instruments;
  const commandsSent = redisCommands.series();
  return {
    instruments,
    outbound: new Outbound({ instruments, intervalMs, nowMs, id: crypto.randomUUID().slice(0, 13) }),
    observeRedis(durationMs, error, commands) {
      observePipeline(durationMs, error);
      redisCommands.add(commandsSent, commands);
    },
    observeDatabase: observerOf(instruments, SYSTEM_NAME, 'query'),
    refusals: new Map(),
    memo: { gauges: new Map(), outbox: undefined },
  };
}
