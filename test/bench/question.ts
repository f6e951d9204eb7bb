/** What a question found out about one of the things that it compares. */
export interface CaseResult {
  name: string;
  /** HTTP requests to Redis for one request of a client. */
  roundTrips: number;
  /** Redis commands for one request of a client; what a script runs inside is not counted. */
  commands: number;
  /** Latency with the question's added delay, in milliseconds. */
  p50Ms: number;
  p95Ms: number;
  p99Ms: number;
  /** Without added delay. */
  requestsPerSecond: number;
}

/** An answered question. The first case is ours, the others are its peers. */
export interface Report {
  question: string;
  cases: CaseResult[];
}

/** A question that `npm run bench` asks: peers beside us in the same run. */
export interface Question {
  /** As it is given on the command line. */
  readonly name: string;
  /** What is asked, in one line. */
  readonly asks: string;
  /** How it is measured, in one line. */
  readonly setUp: string;
  run(progress: (line: string) => void): Promise<Report>;
}
