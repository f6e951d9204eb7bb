import { FAMILIES, familyOf } from './families.ts';
import { nameOf } from './commands.ts';
import type { Command, Outcome } from './reply.ts';

/** Upper bounds of the duration histograms, in seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5] as const;

/** What the gateway knows of itself at the moment of asking. */
export interface Gauges {
  inFlight: number;
  streams: number;
  connected: boolean;
  connections: { open: number; unproven: number; cutOff: number };
}

/** Things that are counted one by one. */
const EVENTS = {
  connectionLost: ['gateway_redis_connections_lost_total', 'Connections to Redis that broke.'],
  wrongToken: ['gateway_wrong_tokens_total', 'Requests with a wrong token or none.'],
  scriptKilled: ['gateway_scripts_killed_total', 'Scripts and functions killed because they held Redis up.'],
  engineRestarted: ['gateway_embedded_restarts_total', 'Replacements of the embedded engine by an empty one.'],
} as const;

/** The number of the bucket that a duration counts in; beyond the last one: their count. */
function bucketOf(seconds: number): number {
  let bucket = 0;
  while (bucket < BUCKETS.length && seconds > BUCKETS[bucket]!) bucket++;
  return bucket;
}

class Histogram {
  readonly buckets = BUCKETS.map(() => 0);
  count = 0;
  sum = 0;

  add(seconds: number, bucket = bucketOf(seconds)): void {
    if (bucket < BUCKETS.length) this.buckets[bucket]! += 1;
    this.count += 1;
    this.sum += seconds;
  }

  lines(name: string, label: string): string[] {
    let below = 0;
    const of = (more: string) => (label === '' && more === '' ? '' : `{${[label, more].filter(Boolean).join(',')}}`);
    return [
      ...BUCKETS.map((bound, i) => `${name}_bucket${of(`le="${bound}"`)} ${(below += this.buckets[i]!)}`),
      `${name}_bucket${of('le="+Inf"')} ${this.count}`,
      `${name}_sum${of('')} ${this.sum}`,
      `${name}_count${of('')} ${this.count}`,
    ];
  }
}

/**
 * Counters of this process, in Prometheus's text format 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). Labels never hold keys; of commands they have the
 * family, so that no client can make new ones.
 */
export class Metrics {
  readonly #requests = new Map<number, number>();
  readonly #durations = new Histogram();
  readonly #families = FAMILIES.map(() => ({ durations: new Histogram(), errors: 0 }));
  readonly #events = new Map<keyof typeof EVENTS, number>();
  #commands = 0;
  #failed = 0;

  /** Counts one request that got its response. */
  request(status: number, durationMs: number): void {
    this.#requests.set(status, (this.#requests.get(status) ?? 0) + 1);
    this.#durations.add(durationMs / 1000);
  }

  /** Counts the commands of one request, which took so long together: their replies come at once. */
  commands(commands: readonly Command[], outcomes: readonly Outcome[] | Error, durationMs: number): void {
    const seconds = durationMs / 1000;
    const found = bucketOf(seconds);
    for (let i = 0; i < commands.length; i++) {
      const family = this.#families[familyOf(nameOf(commands[i]!))]!;
      family.durations.add(seconds, found);
      if (outcomes instanceof Error || outcomes[i] instanceof Error) {
        family.errors += 1;
        this.#failed += 1;
      }
    }
    this.#commands += commands.length;
  }

  count(event: keyof typeof EVENTS): void {
    this.#events.set(event, (this.#events.get(event) ?? 0) + 1);
  }

  write({ inFlight, streams, connected, connections }: Gauges): string {
    const lines: string[] = [];
    const add = (name: string, type: string, help: string, samples: [labels: string, value: number][]) => {
      lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
      for (const [labels, value] of samples) lines.push(`${name}${labels} ${value}`);
    };
    const gauge = (name: string, help: string, value: number) => add(name, 'gauge', help, [['', value]]);
    const statuses = [...this.#requests].toSorted(([a], [b]) => a - b);
    add(
      'gateway_http_requests_total',
      'counter',
      'Requests by HTTP status.',
      statuses.map(([status, count]) => [`{status="${status}"}`, count]),
    );
    add('gateway_commands_total', 'counter', 'Redis commands that got a reply.', [['', this.#commands]]);
    add('gateway_command_errors_total', 'counter', 'Redis commands whose reply is an error.', [['', this.#failed]]);
    const used = FAMILIES.flatMap((family, i) => {
      const { durations, errors } = this.#families[i]!;
      return durations.count === 0 ? [] : [{ label: `family="${family}"`, durations, errors }];
    });
    add(
      'gateway_family_errors_total',
      'counter',
      'Redis commands whose reply is an error, by family.',
      used.map(({ label, errors }) => [`{${label}}`, errors]),
    );
    const latency = 'gateway_command_duration_seconds';
    add(latency, 'histogram', 'Time from sending a request’s commands to Redis to the last reply, by family.', []);
    for (const { label, durations } of used) lines.push(...durations.lines(latency, label));
    gauge('gateway_commands_in_flight', 'Commands in flight.', inFlight);
    gauge('gateway_streams', 'Open subscriptions and monitors.', streams);
    gauge('gateway_redis_connected', '1 while every Redis server is connected.', Number(connected));
    gauge('gateway_http_connections', 'Open connections of clients.', connections.open);
    gauge('gateway_http_connections_unproven', 'Of them, without a valid token so far.', connections.unproven);
    add('gateway_http_connections_cut_total', 'counter', 'Connections cut off because there were too many.', [
      ['', connections.cutOff],
    ]);
    for (const [event, [name, help]] of Object.entries(EVENTS)) {
      add(name, 'counter', help, [['', this.#events.get(event as keyof typeof EVENTS) ?? 0]]);
    }
    const { rss, heapUsed, external } = process.memoryUsage();
    gauge('process_resident_memory_bytes', 'Resident memory size in bytes.', rss);
    gauge('nodejs_heap_size_used_bytes', 'Bytes of the JavaScript heap in use.', heapUsed);
    gauge('nodejs_external_memory_bytes', 'Bytes of buffers outside of the heap.', external);
    const { user, system } = process.cpuUsage();
    add('process_cpu_seconds_total', 'counter', 'User and system CPU time in seconds.', [['', (user + system) / 1e6]]);
    const duration = 'gateway_request_duration_seconds';
    add(duration, 'histogram', 'Time from a request’s arrival to its response.', []);
    lines.push(...this.#durations.lines(duration, ''));
    return `${lines.join('\n')}\n`;
  }
}
