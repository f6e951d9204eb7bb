/** Upper bounds of the duration histogram, in seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5] as const;

/** What the gateway knows of itself at the moment of asking. */
export interface Gauges {
  inFlight: number;
  streams: number;
  connected: boolean;
}

/**
 * Counters of this process, in Prometheus's text format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). Labels never hold keys or names of commands.
 */
export class Metrics {
  readonly #requests = new Map<number, number>();
  readonly #buckets = BUCKETS.map(() => 0);
  #durations = 0;
  #durationSum = 0;
  #commands = 0;
  #failed = 0;
  #losses = 0;

  /** Counts one answered request. */
  request(status: number, durationMs: number): void {
    this.#requests.set(status, (this.#requests.get(status) ?? 0) + 1);
    const seconds = durationMs / 1000;
    const bucket = BUCKETS.findIndex((bound) => seconds <= bound);
    if (bucket !== -1) this.#buckets[bucket]! += 1;
    this.#durations += 1;
    this.#durationSum += seconds;
  }

  /** Counts commands, of which `failed` were answered with an error. */
  commands(count: number, failed: number): void {
    this.#commands += count;
    this.#failed += failed;
  }

  /** Counts a lost connection to a Redis server. */
  connectionLost(): void {
    this.#losses += 1;
  }

  write({ inFlight, streams, connected }: Gauges): string {
    const lines: string[] = [];
    const add = (name: string, type: string, help: string, samples: [labels: string, value: number][]) => {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
      for (const [labels, value] of samples) lines.push(`${name}${labels} ${value}`);
    };
    const statuses = [...this.#requests].toSorted(([a], [b]) => a - b);
    add(
      'gateway_http_requests_total',
      'counter',
      'Requests answered, by HTTP status.',
      statuses.map(([status, count]) => [`{status="${status}"}`, count]),
    );
    add('gateway_commands_total', 'counter', 'Redis commands answered.', [['', this.#commands]]);
    add('gateway_command_errors_total', 'counter', 'Redis commands answered with an error.', [['', this.#failed]]);
    add('gateway_commands_in_flight', 'gauge', 'Commands accepted and not yet answered.', [['', inFlight]]);
    add('gateway_streams', 'gauge', 'Open subscriptions and monitors.', [['', streams]]);
    add('gateway_redis_connected', 'gauge', '1 while every Redis server is connected.', [['', Number(connected)]]);
    add('gateway_redis_connections_lost_total', 'counter', 'Connections to Redis that broke.', [['', this.#losses]]);
    add('process_resident_memory_bytes', 'gauge', 'Resident memory size in bytes.', [['', process.memoryUsage.rss()]]);
    const { user, system } = process.cpuUsage();
    add('process_cpu_seconds_total', 'counter', 'User and system CPU time in seconds.', [['', (user + system) / 1e6]]);

    const name = 'gateway_request_duration_seconds';
    let below = 0;
    const samples = BUCKETS.map((bound, i) => `${name}_bucket{le="${bound}"} ${(below += this.#buckets[i]!)}`);
    lines.push(
      `# HELP ${name} Time from a request's arrival to its answer.`,
      `# TYPE ${name} histogram`,
      ...samples,
      `${name}_bucket{le="+Inf"} ${this.#durations}`,
      `${name}_sum ${this.#durationSum}`,
      `${name}_count ${this.#durations}`,
    );
    return `${lines.join('\n')}\n`;
  }
}
