import type { Isolate } from './isolate.ts';

/** One request and its response, as the client saw it. */
export interface Exchange {
  readonly isolate: Isolate;
  readonly route: string;
  readonly label: string;
  readonly sentMs: number;
  readonly arrivedMs: number;
  readonly servedMs: number;
  readonly status: number;
  readonly code: string;
  readonly degraded: string;
  readonly databaseTrips: number;
}
