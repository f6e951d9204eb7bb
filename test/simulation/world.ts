import { createHash, createPrivateKey } from 'node:crypto';

import { CLIENT_TIMEOUT_MS, SETTINGS } from './bounds.ts';
import { SimulatedD1 } from './d1.ts';
import type { Database, DatabaseDeps, DatabaseKind } from './database.ts';
import { bootEngine } from './engine.ts';
import type { Engine } from './engine.ts';
import type { Exchange } from './exchange.ts';
import { Isolate } from './isolate.ts';
import type { Invocation } from './isolate.ts';
import { Model } from './model.ts';
import { Network } from './network.ts';
import { PostgresStore } from './pglite.ts';
import { ISOLATES } from './plan.ts';
import type { Loss, Plan } from './plan.ts';
import { SimulatedPostgres } from './postgres.ts';
import { createRandom } from './random.ts';
import type { Random } from './random.ts';
import { realmsOf } from './realm.ts';
import type { Realm } from './realm.ts';
import { SimulatedRedis } from './redis.ts';
import { BEGIN_MS, Scheduler } from './scheduler.ts';
import { SqlStore } from './sqlite.ts';
import { Timeline } from './timeline.ts';

/** What is costly to make, and serves one run after the other in a process. */
export interface Stage {
  engine: Engine;
  kind: DatabaseKind;
  /** As the migrations leave it. */
  database(deps: DatabaseDeps, plan: Plan): Database;
  realms: () => Realm;
  /** Realms that no isolate lives in. */
  free: Realm[];
  clock: { nowMs: number };
  /** The process may end. */
  close(): Promise<void>;
}

/** @param bundle the Worker, built for that database */
export async function buildStage(bundle: string, kind: DatabaseKind): Promise<Stage> {
  const clock = { nowMs: BEGIN_MS };
  const engine = await bootEngine(() => clock.nowMs);
  const databases = kind === 'd1' ? d1() : await postgres();
  return { ...databases, engine, kind, realms: realmsOf(bundle), free: [], clock };
}

function d1(): Pick<Stage, 'database' | 'close'> {
  const [store, replica] = [new SqlStore(), new SqlStore()];
  return {
    database: (deps, { replicas }) => new SimulatedD1(deps, store, replicas === true ? replica : undefined),
    async close() {},
  };
}

async function postgres(): Promise<Pick<Stage, 'database' | 'close'>> {
  const store = await PostgresStore.start();
  return { database: (deps) => new SimulatedPostgres(deps, store), close: () => store.close() };
}

/** One request as a client makes it. */
export interface Call {
  label: string;
  isolate: number;
  method: string;
  path: string;
  token?: string | undefined;
  body?: object | undefined;
  address?: string | undefined;
  /** Its `Idempotency-Key`. */
  key?: string | undefined;
  lose?: Loss | undefined;
}

/** What the client gets: a response, or nothing. */
export type Outcome =
  | { lost: true }
  | { lost: false; exchange: Exchange; body: Record<string, unknown>; retryAfterMs: number };

/** Everything that one run is made of. */
export class World {
  readonly scheduler = new Scheduler();
  readonly timeline = new Timeline();
  readonly model: Model;
  readonly redis: SimulatedRedis;
  readonly network: Network;
  readonly database: Database;
  readonly isolates: Isolate[] = [];
  readonly lines: string[] = [];
  readonly random: Random;
  readonly #stage: Stage;
  readonly #plan: Plan;
  readonly #tracing: boolean;
  readonly #used: Realm[] = [];
  readonly #mails = new Map<string, readonly string[]>();
  #births = 0;

  constructor(stage: Stage, plan: Plan, tracing: boolean) {
    this.#stage = stage;
    this.#plan = plan;
    this.#tracing = tracing;
    const { scheduler, timeline } = this;
    this.model = new Model(timeline, {
      rememberedMs: rememberedMs(plan),
      clocksMs: clocksMs(plan, 60_000),
      database: stage.kind,
    });
    // The engine asks for the time of the run that it serves.
    Object.defineProperty(stage.clock, 'nowMs', { get: () => scheduler.nowMs, configurable: true });
    this.redis = new SimulatedRedis(stage.engine);
    this.random = createRandom(plan.seed, 'world');
    const trace = (line: () => string) => this.trace(line);
    const unsettled = (kind: 'network' | 'database', fromMs: number, toMs: number) => timeline.note(kind, fromMs, toMs);
    const random = (label: string) => createRandom(plan.seed, label);
    const inVain = (text: string) => this.model.violate('cost', scheduler.nowMs, text);
    this.network = new Network({ scheduler, random: random('network'), redis: this.redis, trace, unsettled, inVain });
    const upkeep = (invocation: Invocation) => this.model.upkeep(invocation, scheduler.nowMs);
    const violate = (invariant: 'fault' | 'cost', text: string) => this.model.violate(invariant, scheduler.nowMs, text);
    this.database = stage.database({ scheduler, random, trace, unsettled, upkeep, violate }, plan);
    for (let index = 0; index < ISOLATES; index += 1) this.isolates.push(this.#birth(index));
  }

  trace(line: () => string): void {
    if (this.#tracing)
      this.lines.push(`${((this.scheduler.nowMs - BEGIN_MS) / 1_000).toFixed(3).padStart(9)}  ${line()}`);
  }

  /** Sends a request, and lets the model look at what comes back. */
  call({
    label,
    isolate: index,
    method,
    path,
    token,
    body,
    address = '203.0.113.7',
    key,
    lose,
  }: Call): Promise<Outcome> {
    const { scheduler } = this;
    const isolate = this.isolates[index]!;
    const sentMs = scheduler.nowMs;
    const route = `${method} ${path.replace(/\?.*$/, '').replaceAll(/\/[0-9a-f-]{36}[^/]*/g, '/:id')}`;
    const name = `${label}: ${route}`;
    this.trace(
      () => `${label} -> ${isolate.name}: ${method} ${path}${lose === undefined ? '' : ` (${lose} gets lost)`}`,
    );
    return new Promise((resolve) => {
      let settled = false;
      let underWay = false;
      const settle = (outcome: Outcome) => {
        if (settled) return;
        settled = true;
        resolve(outcome);
      };
      scheduler.after(CLIENT_TIMEOUT_MS, () => {
        if (settled) return;
        this.trace(() => `${label} gives up ${method} ${path}`);
        if (underWay && isolate.alive) this.model.unanswered({ isolate, label: name, route }, scheduler.nowMs);
        settle({ lost: true });
      });
      if (lose === 'request') return;
      const onTheWay = this.random.between(1, 5);
      scheduler.after(onTheWay, () => {
        if (!isolate.alive) return;
        const servedFromMs = scheduler.nowMs;
        underWay = true;
        const request = new Request(`https://api.gatehouse.test${path}`, {
          method,
          headers: {
            'CF-Connecting-IP': address,
            ...(body !== undefined && { 'Content-Type': 'application/json' }),
            ...(token !== undefined && { Authorization: `Bearer ${token}` }),
            ...(key !== undefined && { 'Idempotency-Key': `"${key}"` }),
          },
          ...(body !== undefined && { body: JSON.stringify(body) }),
        });
        void isolate.serve(label, request).then(async ({ response, invocation }) => {
          const text = await response.text();
          underWay = false;
          const json = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>;
          const servedMs = scheduler.nowMs - servedFromMs;
          const databaseTrips = invocation.databaseTrips;
          const code = typeof json['code'] === 'string' ? json['code'] : '';
          this.trace(() => `${isolate.name} answers ${label}: ${response.status} ${code}${degradedOf(response)}`);
          if (lose === 'response') return;
          scheduler.after(this.random.between(1, 5), () => {
            const exchange: Exchange = {
              isolate,
              route,
              label: name,
              sentMs,
              arrivedMs: scheduler.nowMs,
              servedMs,
              status: response.status,
              code,
              degraded: response.headers.get('Gatehouse-Degraded') ?? '',
              databaseTrips,
            };
            const retryAfterMs = Number(response.headers.get('Retry-After') ?? 0) * 1_000;
            if (!settled) settle({ lost: false, exchange, body: json, retryAfterMs });
          });
        });
      });
    });
  }

  async cron(index: number): Promise<void> {
    const isolate = this.isolates[index]!;
    const fromMs = this.scheduler.nowMs;
    this.trace(() => `cron begins at ${isolate.name}`);
    await isolate.scheduled();
    this.trace(() => `cron has ended at ${isolate.name}`);
    this.timeline.crons.push({ fromMs, toMs: this.scheduler.nowMs });
  }

  kill(index: number): void {
    const isolate = this.isolates[index]!;
    this.trace(() => `${isolate.name} dies`);
    isolate.kill();
    this.isolates[index] = this.#birth(index);
  }

  /** Gives back what the next run uses again. */
  end(): void {
    for (const isolate of this.isolates) isolate.kill();
    this.#stage.free.push(...this.#used);
  }

  #birth(index: number): Isolate {
    const realm = this.#stage.free.shift() ?? this.#stage.realms();
    this.#used.push(realm);
    const life = (this.#births += 1);
    const letter = String.fromCharCode(65 + index);
    return new Isolate({
      index,
      name: life <= ISOLATES ? letter : `${letter}${life}`,
      realm,
      // A new object: the Worker's state hangs on its settings.
      env: {
        ...bindings(),
        ...(this.#plan.mail === true && MAIL),
        READS_WITHIN_MS: String(this.#plan.withinMs ?? 0),
        ...this.database.env(),
      },
      clock: { ...this.#plan.clocks[index]! },
      scheduler: this.scheduler,
      random: createRandom(this.#plan.seed, `isolate ${life}`),
      fetch: (invocation, body) => {
        invocation.redisCalls += 1;
        return this.network.call(invocation, body);
      },
      connect: (invocation) => this.database.connect(invocation),
      log: (isolate, line) => this.#log(isolate, line),
    });
  }

  /** Tokens of the mails to an address. */
  mailsTo(email: string): readonly string[] {
    return this.#mails.get(email) ?? [];
  }

  #log(isolate: Isolate, line: string): void {
    const [, to, token] = /mail to (\S+) [^]*\?token=([\w.-]+)/.exec(line) ?? [];
    if (to !== undefined && token !== undefined) this.#mails.set(to, [...this.mailsTo(to), token]);
    if (line.includes('"event":"redis.probe_failed"')) isolate.probeFailedAtMs = this.scheduler.nowMs;
    if (line.includes('"event":"redis.available"')) {
      isolate.trustedAtMs = this.scheduler.nowMs;
      isolate.probeFailedAtMs = Number.NEGATIVE_INFINITY;
    }
    if (line.includes('"event":"own.lock_')) {
      const { event, fence } = JSON.parse(line) as { event: string; fence: number };
      if (event === 'own.lock_held') this.model.locks.held(isolate, fence, this.scheduler.nowMs);
      else this.model.locks.left(fence, this.scheduler.nowMs);
    }
    this.trace(() => `${isolate.name} logs ${line}`);
  }
}

/** How long a read may go by what Redis said: an isolate measures it by its own clock, which the plan may set back. */
const rememberedMs = ({ withinMs = 0, ...plan }: Plan) => (withinMs === 0 ? 0 : withinMs + clocksMs(plan, withinMs));

/** By how much an isolate may be wrong about a duration. */
function clocksMs({ clocks, steps }: Pick<Plan, 'clocks' | 'steps'>, durationMs: number): number {
  const driftMs = Math.max(...clocks.map(({ driftPpm }) => (durationMs * Math.abs(driftPpm)) / 1_000_000));
  const stepsMs = steps.reduce((sum, step) => sum + (step.do === 'clock' ? Math.abs(step.byMs) : 0), 0);
  return Math.ceil(driftMs) + stepsMs;
}

function degradedOf(response: Response): string {
  const degraded = response.headers.get('Gatehouse-Degraded');
  return degraded === null ? '' : ` (${degraded})`;
}

/** The mailer for developers writes mails to the log. */
const MAIL = { MAILER: 'console', RECOVERY_URL: 'https://app.gatehouse.test/recovery?token={token}' };

let made: Record<string, string> | undefined;

/** Keys are the same in every run: a token's text depends on them. */
function bindings(): Record<string, string> {
  if (made !== undefined) return made;
  const secret = createHash('sha256').update('gatehouse simulation').digest();
  // PKCS #8 of an Ed25519 key: a fixed head and 32 bytes (RFC 8410, section 7).
  const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), secret]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const signing = { ...key.export({ format: 'jwk' }), kid: 'sim-1', alg: 'Ed25519', use: 'sig', state: 'active' };
  const refresh = { kty: 'oct', k: secret.toString('base64url'), kid: 'sim-r1', alg: 'HS256', state: 'active' };
  made = {
    ISSUER: 'https://api.gatehouse.test',
    AUDIENCE: 'gatehouse-simulation',
    SIGNING_KEYS: JSON.stringify({ keys: [signing] }),
    REFRESH_KEYS: JSON.stringify({ keys: [refresh] }),
    UPSTASH_REDIS_REST_URL: 'https://redis.gatehouse.test',
    UPSTASH_REDIS_REST_TOKEN: 'simulated',
    SCRYPT_LN: '1',
    SCRYPT_P: '1',
    ...SETTINGS,
  };
  return made;
}
