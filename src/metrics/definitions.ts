/** One instrument: its name, unit, labels and buckets. */
export interface Definition {
  /** As OpenTelemetry writes names: https://opentelemetry.io/docs/specs/semconv/general/naming/ */
  readonly name: string;
  /** `gauge`: a current state, replaced by each report. The other kinds only grow. */
  readonly kind: 'counter' | 'histogram' | 'gauge';
  /** UCUM; `{…}` is an annotation and no unit. */
  readonly unit: string;
  readonly help: string;
  /** At most three attributes, in the order in which their values are passed. */
  readonly labels: readonly string[];
  /** Upper bounds of a histogram's buckets, in `unit`. */
  readonly bounds?: readonly number[];
  /** Further label values are counted together in one overflow series. */
  readonly maxSeries: number;
}

/** The buckets that the conventions advise for HTTP and for databases, in seconds. */
const HTTP_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const DATABASE_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10];

const define = <const D extends Record<string, Definition>>(definitions: D): D => definitions;

/**
 * All instruments. Names, units and attributes follow OpenTelemetry's semantic conventions 1.45 where these define them
 * (`http.server.request.duration`, `db.client.operation.duration`); all other names begin with `gatehouse.`.
 */
export const DEFINITIONS = define({
  requests: {
    name: 'http.server.request.duration',
    kind: 'histogram',
    unit: 's',
    help: 'Time from a request to its response, by route.',
    labels: ['http.request.method', 'http.route', 'http.response.status_code'],
    bounds: HTTP_SECONDS,
    maxSeries: 300,
  },
  databaseCalls: {
    name: 'db.client.operation.duration',
    kind: 'histogram',
    unit: 's',
    help: 'Time from a call to Redis (one pipeline) or D1 (one query or batch) to its outcome.',
    labels: ['db.system.name', 'db.operation.name', 'error.type'],
    bounds: DATABASE_SECONDS,
    maxSeries: 40,
  },
  blockingTrips: {
    name: 'gatehouse.redis.blocking_trips',
    kind: 'histogram',
    unit: '{trip}',
    help: 'Calls to Redis that one request waited for.',
    labels: [],
    bounds: [0, 1, 2, 3, 5, 10],
    maxSeries: 1,
  },
  redisCommands: {
    name: 'gatehouse.redis.commands',
    kind: 'counter',
    unit: '{command}',
    help: 'Commands sent to Redis; a script counts as one.',
    labels: [],
    maxSeries: 1,
  },
  limitDecisions: {
    name: 'gatehouse.ratelimit.decisions',
    kind: 'counter',
    unit: '{decision}',
    help: 'Decisions of rate limits, by the mechanism that decided.',
    labels: ['gatehouse.policy', 'gatehouse.outcome', 'gatehouse.source'],
    maxSeries: 150,
  },
  cacheRequests: {
    name: 'gatehouse.cache.requests',
    kind: 'counter',
    unit: '{request}',
    help: 'Reads through the cache, by the source of the response.',
    labels: ['gatehouse.namespace', 'gatehouse.outcome'],
    maxSeries: 150,
  },
  guardOutcomes: {
    name: 'gatehouse.guard.outcomes',
    kind: 'counter',
    unit: '{request}',
    help: 'Requests that a guard allowed (`ok`) or refused, by error code.',
    labels: ['gatehouse.code'],
    maxSeries: 40,
  },
  degraded: {
    name: 'gatehouse.degraded',
    kind: 'counter',
    unit: '{request}',
    help: 'Requests handled by a failure policy.',
    labels: ['gatehouse.policy'],
    maxSeries: 30,
  },
  breakerTransitions: {
    name: 'gatehouse.breaker.transitions',
    kind: 'counter',
    unit: '{transition}',
    help: 'State changes of the circuit breaker of an isolate.',
    labels: ['gatehouse.state'],
    maxSeries: 4,
  },
  outboxDeliveries: {
    name: 'gatehouse.outbox.deliveries',
    kind: 'counter',
    unit: '{message}',
    help: 'Outbox messages that were delivered to Redis, or that a request or a backlog run failed to deliver.',
    labels: ['gatehouse.outcome'],
    maxSeries: 8,
  },
  outboxPending: {
    name: 'gatehouse.outbox.pending',
    kind: 'gauge',
    unit: '{message}',
    help: 'Outbox messages not yet delivered to Redis, at the last run of the cron trigger.',
    labels: [],
    maxSeries: 1,
  },
  outboxOldestAge: {
    name: 'gatehouse.outbox.oldest_age',
    kind: 'gauge',
    unit: 's',
    help: 'Age of the oldest undelivered outbox message.',
    labels: [],
    maxSeries: 1,
  },
  authEvents: {
    name: 'gatehouse.auth.events',
    kind: 'counter',
    unit: '{event}',
    help: 'Events of accounts and their sessions.',
    labels: ['gatehouse.kind'],
    maxSeries: 40,
  },
  hashWait: {
    name: 'gatehouse.password.hash.wait',
    kind: 'histogram',
    unit: 's',
    help: 'Time that a password hash waited for its turn in its isolate.',
    labels: [],
    bounds: [0.005, 0.05, 0.25, 0.5, 1, 2.5, 5],
    maxSeries: 1,
  },
  hashes: {
    name: 'gatehouse.password.hashes',
    kind: 'counter',
    unit: '{hash}',
    help: 'Password hashes that were computed, or refused because too many were waiting.',
    labels: ['gatehouse.outcome'],
    maxSeries: 4,
  },
  breachLookups: {
    name: 'gatehouse.password.breach.lookups',
    kind: 'counter',
    unit: '{lookup}',
    help: 'New passwords that were looked up in a list of breached ones; a failed lookup lets the password pass.',
    labels: ['gatehouse.outcome'],
    maxSeries: 4,
  },
  mails: {
    name: 'gatehouse.mails',
    kind: 'counter',
    unit: '{mail}',
    help: 'Mails that a mailer accepted or refused.',
    labels: ['gatehouse.kind', 'gatehouse.outcome'],
    maxSeries: 20,
  },
  warmedItems: {
    name: 'gatehouse.warming.items',
    kind: 'counter',
    unit: '{item}',
    help: 'Items of warming jobs.',
    labels: ['gatehouse.job', 'gatehouse.outcome'],
    maxSeries: 60,
  },
  locks: {
    name: 'gatehouse.locks',
    kind: 'counter',
    unit: '{acquisition}',
    help: 'Attempts to acquire a lock.',
    labels: ['gatehouse.outcome'],
    maxSeries: 6,
  },
  logsLeftOut: {
    name: 'gatehouse.log.left_out',
    kind: 'counter',
    unit: '{line}',
    help: 'Log lines about refused and degraded requests that were suppressed because there were too many.',
    labels: ['gatehouse.event'],
    maxSeries: 8,
  },
  dropped: {
    name: 'gatehouse.metrics.dropped',
    kind: 'counter',
    unit: '{request}',
    help: 'Requests whose counts were dropped, by reason.',
    labels: ['gatehouse.reason'],
    maxSeries: 4,
  },
  isolates: {
    name: 'gatehouse.isolates',
    kind: 'gauge',
    unit: '{isolate}',
    help: 'Isolates that have reported within the last minute.',
    labels: [],
    maxSeries: 1,
  },
  complete: {
    name: 'gatehouse.metrics.complete',
    kind: 'gauge',
    unit: '1',
    help: '1: counts of all isolates. 0: Redis is away; the counts are those of the responding isolate since its last report.',
    labels: [],
    maxSeries: 1,
  },
});

export type InstrumentName = keyof typeof DEFINITIONS;
