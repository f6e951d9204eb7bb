import { DEFINITIONS } from './definitions';
import type { InstrumentName } from './definitions';
import { Instrument } from './registry';

/** Everything that an isolate measures. One set per isolate, passed to the code that records. */
export type Instruments = Readonly<Record<InstrumentName, Instrument>>;

export function createInstruments(): Instruments {
  const entries = Object.entries(DEFINITIONS).map(([key, definition]) => [key, new Instrument(definition)]);
  return Object.fromEntries(entries) as Instruments;
}

/** Records how a call to Redis or D1 ended. `error` is `''` after success, else the value of `error.type`. */
export type CallObserver = (durationMs: number, error: string) => void;

/** Observes calls to one system. A successful call costs no series look-up. */
export function observerOf({ databaseCalls }: Instruments, system: string, operation: string): CallObserver {
  const well = databaseCalls.series(system, operation);
  return (durationMs, error) => {
    const series = error === '' ? well : databaseCalls.series(system, operation, error);
    databaseCalls.record(series, Math.max(0, durationMs));
  };
}
