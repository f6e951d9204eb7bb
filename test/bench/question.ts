/** Latencies of one load, in milliseconds, and what it served. A field that does not apply is left out. */
export interface Figures {
  p50Ms?: number;
  p95Ms?: number;
  p99Ms?: number;
  /** Without added delay. */
  requestsPerSecond?: number;
}

/** The figures of one load of several. */
export interface LoadFigures extends Figures, Trips, DatabaseFigures {
  load: string;
  connections: number;
  /** Why there are no figures: the unexpected response, or that none came. */
  failed?: string;
}

export interface Trips {
  /** HTTP requests to Redis that the response waits for, for one request of a client. */
  blockingTrips?: number;
  /** HTTP requests to Redis for one request of a client. */
  roundTrips?: number;
  /** Redis commands for one request of a client; what a script runs inside is counted only where the question says so. */
  commands?: number;
}

/** What the database does, for one request of a client or one message, unless the question says otherwise. */
export interface DatabaseFigures {
  /** Times that the Worker waits for it: with PostgreSQL also for the connection that each request opens. */
  databaseTrips?: number;
  /** Requests of the D1 binding, or transactions of PostgreSQL, of which a batch is one. */
  databaseBatches?: number;
  databaseQueries?: number;
  rowsRead?: number;
  rowsWritten?: number;
}

/** What a question found out about one of the things that it compares: its headline figures, and more beside. */
export interface CaseResult extends Figures, Trips, DatabaseFigures {
  name: string;
  /** Which database ours had, for a question that asks with both. PostgreSQL does not count the rows of indexes as written. */
  database?: 'd1' | 'postgres';
  /** Messages of the outbox. */
  messagesPerSecond?: number;
  /** User and system time of workerd for one request, in microseconds. */
  cpuMicros?: number;
  /** The figures of each load, for a question that asks several. */
  loads?: LoadFigures[];
  /** What was admitted, as a share of what a limit allows, by how many times the limit was offered. */
  acceptedShare?: Record<string, number>;
  /** How many requests {@link retainedBytes} was measured over. */
  requests?: number;
  /** Heap that a request left behind, in bytes. */
  retainedBytes?: number;
  /** The most that was admitted in any window under an adversarial schedule, as a share of the limit. */
  worstWindow?: number;
  /** Resident memory after so many requests, in MiB. */
  rssMiB?: Record<string, number>;
  /** What one token costs, by algorithm, in microseconds. */
  microseconds?: Record<string, { sign: number; verify: number }>;
  /** What was found out that is not a figure. */
  notes?: string[];
  /** Why there are no figures. The program then ends with status 1. */
  failed?: string;
}

/** The results for a question. The first case is ours, the others are its peers. */
export interface Report {
  question: string;
  cases: CaseResult[];
  /** The heap of each isolate or process when all was done, in bytes. */
  heapBytes?: Record<string, number>;
}

export interface RunOptions {
  /** Rounds of each load, in place of the question's own number: one for a look, more for steadier figures. */
  rounds?: number | undefined;
  /** Cases to ask about, by name, for a question of many. */
  only?: RegExp | undefined;
}

/** A question that `npm run bench` asks: peers beside us in the same run. */
export interface Question {
  /** As it is given on the command line. */
  readonly name: string;
  /** What is asked, in one line. */
  readonly asks: string;
  /** How it is measured, in one line. */
  readonly setUp: string;
  run(progress: (line: string) => void, options?: RunOptions): Promise<Report>;
}
