import { brief, countCall, DatabaseFaults, USUAL_MS } from './database.ts';
import type { Database, DatabaseDeps, Fate } from './database.ts';
import { currentInvocation } from './isolate.ts';
import type { Invocation } from './isolate.ts';
import type { PostgresStore } from './pglite.ts';
import type { Random } from './random.ts';
import { SimulatedSocket } from './socket.ts';
import { fatal, isTermination, query, READY, requestsOf, WELCOME } from './wire.ts';
import type { Request, Response } from './wire.ts';

/** Hyperdrive is near, and accepts a connection for the server. */
const CONNECT_MS = 4;
/** How often the server ends a transaction while others are in its way; never twelve times in a row. */
const CONFLICT_CHANCE = 0.25;

/**
 * PostgreSQL behind Hyperdrive, with a network between. The product's engine and its driver see a socket of
 * `cloudflare:sockets`. What they send in one turn arrives together, and the server does all of it before anything else:
 * transactions do not overlap, but fail as if they did.
 */
export class SimulatedPostgres implements Database {
  readonly name = 'PostgreSQL';
  readonly faults: DatabaseFaults;
  readonly #deps: DatabaseDeps;
  readonly #random: Random;
  readonly #store: PostgresStore;
  readonly #connections = new Set<Connection>();

  constructor(deps: DatabaseDeps, store: PostgresStore) {
    this.#deps = deps;
    this.#random = deps.random('database');
    this.faults = new DatabaseFaults(this.#random, deps);
    this.#store = store;
    store.reset();
  }

  env(): object {
    return { HYPERDRIVE: { connectionString: 'postgres://app:simulated@hyperdrive.test:5432/app' } };
  }

  connect(invocation: Invocation): object {
    const connection = new Connection({
      ...this.#deps,
      invocation,
      network: this.#random,
      faults: this.faults,
      serve: (requests, failing) => this.#serve(requests, failing),
      over: () => this.#connections.delete(connection),
    });
    this.#connections.add(connection);
    return connection.socket;
  }

  execute(sql: string): unknown[][] {
    return this.#store.execute(sql);
  }

  save(): () => void {
    const copy = this.#store.copy();
    return () => {
      this.#store.load(copy);
      // A server that goes back in time is stopped first.
      for (const connection of this.#connections) connection.break();
    };
  }

  /** Does what a client asks for, up to where its connection breaks. */
  #serve(requests: readonly Request[], failing: Failing | undefined): Served {
    const random = this.#random;
    const conflict = this.#conflictOf(requests);
    const failure =
      failing === 'statement'
        ? { at: random.between(0, requests.length - 1), code: random.pick(['53200', '57014', 'XX000'] as const) }
        : conflict;
    const end = failing === 'cut' ? random.between(0, requests.length - 1) : requests.length;
    const responses: Response[] = [];
    for (const [index, { bytes, sql }] of requests.slice(0, end).entries()) {
      responses.push(index === failure?.at ? this.#fail(sql, failure.code) : this.#store.respond(bytes));
    }
    if (responses.length > 0 && responses.at(-1)?.status !== 'idle') {
      if (failing !== 'cut') throw new Error(`no end of a transaction: ${brief(requests.map(({ sql }) => sql))}`);
      this.#store.respond(query('rollback'));
    }
    return { responses, isConflict: failure !== undefined && failure === conflict };
  }

  /** Where and how the first transaction fails because of others that want the same. */
  #conflictOf(requests: readonly Request[]): { at: number; code: string } | undefined {
    if (!this.faults.conflicts) return undefined;
    const begun = requests.findIndex(({ sql }) => sql.startsWith('begin'));
    if (begun < 0 || !this.#random.chance(CONFLICT_CHANCE)) return undefined;
    const commit = requests.findIndex(({ sql }, index) => index > begun && sql === 'commit');
    // Every second one with its COMMIT: what it has read is out of date only then.
    const at = this.#random.chance(0.5) ? commit : this.#random.between(begun + 1, commit);
    return { at, code: at < commit && this.#random.chance(0.3) ? '40P01' : '40001' };
  }

  #fail(sql: string, code: string): Response {
    const failed = this.#store.fail(code);
    if (sql !== 'commit') return failed;
    // A transaction that fails with its COMMIT is over.
    this.#store.respond(query('rollback'));
    const error = failed.bytes.subarray(0, failed.bytes.length - READY.length);
    return { ...failed, bytes: Buffer.concat([error, READY]), status: 'idle' };
  }
}

/** `statement`: one of the statements fails. `cut`: what is not committed at some point is rolled back. */
type Failing = 'statement' | 'cut';

interface Served {
  /** One for each request that was served. */
  responses: Response[];
  /** Whether a transaction has failed that another try may commit. */
  isConflict: boolean;
}

interface ConnectionOptions extends DatabaseDeps {
  /** Whose it is. */
  invocation: Invocation;
  network: Random;
  faults: DatabaseFaults;
  serve: (requests: readonly Request[], failing: Failing | undefined) => Served;
  over: () => void;
}

/** One connection: what is sent arrives in its order, as long as anything does. */
class Connection {
  readonly socket = new SimulatedSocket((bytes) => this.#write(bytes));
  readonly #options: ConnectionOptions;
  /** `silent`: messages are lost in both directions, and the connection is not closed. */
  #state: 'new' | 'open' | 'silent' | 'over' = 'new';
  /** What is written in this turn. */
  #turn: Uint8Array[] | undefined;
  #arrivedMs = 0;
  #repliedMs = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  /** @param atMs when the client notices */
  break(atMs = this.#options.scheduler.nowMs + CONNECT_MS): void {
    this.#end();
    this.#notice(atMs, () => this.socket.break());
  }

  #write(bytes: Uint8Array): void {
    const { scheduler, invocation, violate } = this.#options;
    if (currentInvocation() !== invocation) {
      violate('fault', `${currentInvocation().label} writes to a socket of ${invocation.label}`);
      throw new Error('Cannot perform I/O on behalf of a different request.');
    }
    if (this.#turn !== undefined) {
      this.#turn.push(bytes);
      return;
    }
    const turn = (this.#turn = [bytes]);
    scheduler.after(0, () => {
      this.#turn = undefined;
      this.#send(Buffer.concat(turn));
    });
  }

  #send(bytes: Buffer): void {
    if (this.#state === 'new') this.#connect();
    else if (isTermination(bytes)) this.#end();
    else this.#call(requestsOf(bytes));
  }

  #connect(): void {
    const { scheduler, faults, invocation, network } = this.#options;
    const mode = faults.modeFor(invocation);
    this.#state = mode === 'hang' ? 'silent' : 'open';
    if (mode === 'hang') this.#trace(() => 'a connection is lost');
    // The server may be away, or Hyperdrive as well.
    if (mode === 'away' && network.chance(0.5)) {
      this.#trace(() => 'connection refused');
      this.break();
    } else this.#reply(scheduler.nowMs + CONNECT_MS, WELCOME);
  }

  #call(requests: readonly Request[]): void {
    const { scheduler, faults, invocation, network, unsettled, violate } = this.#options;
    const sentMs = scheduler.nowMs;
    const statements = requests
      .map(({ sql }) => sql)
      .filter((sql) => !/^(?:begin|lock table|set local|commit)\b/.test(sql));
    if (statements.length === 0) violate('cost', `${invocation.label} sends a transaction without a statement`);
    const trips = invocation.databaseTrips;
    countCall(invocation, statements, this.#options);
    const counted = invocation.databaseTrips - trips;
    const { outcome, lateMs, lateBackMs } = faults.fate(invocation);
    const arrivesMs = Math.max(this.#arrivedMs, sentMs + network.between(1, 12) + lateMs);
    const repliesMs = Math.max(this.#repliedMs, arrivesMs + network.between(1, 12) + lateBackMs);
    this.#arrivedMs = arrivesMs;
    this.#repliedMs = repliesMs;
    if (repliesMs - sentMs > USUAL_MS) unsettled('database', sentMs, repliesMs);
    scheduler.at(arrivesMs, () => {
      if (this.#state !== 'open') return;
      // After a conflict another try takes another trip, which is the server's doing. It is no outage, and excuses nothing.
      if (this.#arrive(requests, outcome, repliesMs)) invocation.databaseTrips -= counted;
    });
  }

  /** @returns whether a transaction has failed that another try may commit */
  #arrive(requests: readonly Request[], outcome: Fate['outcome'], repliesMs: number): boolean {
    const { faults, invocation, network, serve } = this.#options;
    const what = () => brief(requests.map(({ sql }) => (sql.startsWith('begin') ? 'begin' : sql)));
    let failing: Failing | undefined;
    if (outcome === 'cut') failing = outcome;
    if (outcome === 'lost') {
      this.#trace(() => `lost: ${what()}`);
      this.#state = 'silent';
      return false;
    }
    if (outcome === 'failed') {
      const isAway = faults.modeFor(invocation) === 'away';
      const way = network.pick(['lost', 'closed', ...(isAway ? [] : ['statement' as const])] as const);
      if (way !== 'statement') {
        this.#trace(() => `connection ${way}: ${what()}`);
        if (way === 'lost') this.break(repliesMs);
        else this.#shutDown(repliesMs);
        return false;
      }
      failing = way;
    }
    const { responses, isConflict } = serve(requests, failing);
    const isLost = outcome === 'cut' || outcome === 'response-lost';
    this.#trace(() => {
      const found = responses.map(({ error, tag }) => error ?? tag).join(', ');
      const after = { cut: ' (connection lost, rolled back)', 'response-lost': ' (connection lost)' };
      return `${what()} = ${found}${after[outcome as keyof typeof after] ?? ''}`;
    });
    if (isLost) this.break(repliesMs);
    else this.#reply(repliesMs, Buffer.concat(responses.map(({ bytes }) => bytes)));
    return isConflict;
  }

  /** The server says that it goes, and does. */
  #shutDown(atMs: number): void {
    this.#reply(atMs, fatal('57P01', 'terminating connection due to administrator command'));
    this.#notice(atMs, () => this.socket.finish());
    this.#end();
  }

  #reply(atMs: number, bytes: Buffer): void {
    this.#notice(atMs, () => {
      if (this.#state !== 'silent') this.socket.deliver(bytes);
    });
  }

  /** Something happens at the client's side. */
  #notice(atMs: number, happen: () => void): void {
    const { scheduler, invocation } = this.#options;
    scheduler.at(atMs, () => {
      if (invocation.open && invocation.isolate.alive) happen();
    });
  }

  #end(): void {
    this.#state = 'over';
    this.#options.over();
  }

  #trace(line: () => string): void {
    const { trace, invocation } = this.#options;
    trace(() => `${invocation.isolate.name} [${invocation.label}] -> PostgreSQL: ${line()}`);
  }
}
