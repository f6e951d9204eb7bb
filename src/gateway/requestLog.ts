import type { Log } from './log.ts';

/** Which requests are logged, one line each. `failures`: those that got 5xx. */
export type LogRequests = 'none' | 'failures' | 'all';

/** The log entry of a request. It never has the path or the arguments: they hold keys and values. */
export interface RequestEntry {
  requestId: string;
  method: string;
  /** `command`, `pipeline`, `transaction`, `subscribe`, … */
  kind: string;
  status: number;
  durationMs: number;
  /** Names of commands, of the first few. */
  commands?: string[] | undefined;
  /** The first word of Redis's or the gateway's error: `UNAVAILABLE`, `BUSY`, `ERR`. */
  error?: string | undefined;
}

/** Failures a second that are logged one by one. While Redis is away every request fails. */
const FAILURES_PER_SECOND = 10;

/** Logs requests with their ids, failures bounded in number, so that an outage does not fill a disk. */
export class RequestLog {
  readonly #log: Log;
  readonly #which: LogRequests;
  #second = 0;
  #failures = 0;

  constructor(log: Log, which: LogRequests) {
    this.#log = log;
    this.#which = which;
  }

  /** Whether a request with this status is logged, so that its entry is worth making. */
  wants(status: number): boolean {
    return this.#which === 'all' || (this.#which === 'failures' && status >= 500);
  }

  add(entry: RequestEntry, nowMs = Date.now()): void {
    if (entry.status >= 500 && !this.#hasRoom(Math.floor(nowMs / 1000))) return;
    const level = entry.status >= 500 ? 'warn' : 'info';
    this.#log({ level, event: 'request', ...entry, durationMs: Math.round(entry.durationMs * 100) / 100 });
  }

  #hasRoom(second: number): boolean {
    if (second !== this.#second) {
      const unlogged = this.#failures - FAILURES_PER_SECOND;
      if (unlogged > 0) this.#log({ level: 'warn', event: 'failures_not_logged', count: unlogged });
      this.#second = second;
      this.#failures = 0;
    }
    return ++this.#failures <= FAILURES_PER_SECOND;
  }
}
