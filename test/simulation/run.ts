import { Clients } from './clients.ts';
import { Faults } from './faults.ts';
import { begunTwice } from './keyedClients.ts';
import { Account } from './model.ts';
import type { Device, Violation } from './model.ts';
import { ACCOUNTS, ISOLATES } from './plan.ts';
import type { ClientStep, Plan } from './plan.ts';
import { BEGIN_MS } from './scheduler.ts';
import { clientStep } from './steps.ts';
import type { Cast } from './steps.ts';
import { World } from './world.ts';
import type { Stage } from './world.ts';

export interface RunResult {
  violations: Violation[];
  /** Events of the simulated world. */
  steps: number;
  lines: string[];
}

const FAULTS = new Set([
  'network',
  'state',
  'refusal',
  'shard',
  'flush',
  'save',
  'restore',
  'database',
  'database-fails',
  'database-conflicts',
  'database-saves',
  'database-restores',
  'cron',
  'kill',
  'clock',
]);

/** Delivered rows may stay: they are delivered again to a Redis that went back in time. */
const UNDELIVERED = "SELECT * FROM outbox WHERE state = 'pending'";

/** Accounts are made in this time, before anything goes wrong. */
const SETUP_MS = 3_000;
/** Crons after the faults: the first two deliver, the others have nothing to do. */
const FINAL_CRONS = 5;
const CRON_MS = 60_000;

/** Plays a plan. The same plan gives the same result. */
export async function run(stage: Stage, plan: Plan, { tracing = false } = {}): Promise<RunResult> {
  const world = new World(stage, plan, tracing);
  const { scheduler, model } = world;
  const unhandled = (reason: unknown) => {
    const text = reason instanceof Error ? `${reason.name}: ${reason.message}` : String(reason);
    model.violate('fault', scheduler.nowMs, `nothing handles ${text.slice(0, 200)}`);
  };
  process.on('unhandledRejection', unhandled);
  try {
    const clients = new Clients(world);
    const cast = await setUp(world, clients);
    const faults = new Faults(world, [cast.admin.account, ...cast.accounts]);
    const beginMs = scheduler.nowMs;
    for (const step of plan.steps) {
      scheduler.at(beginMs + step.at, () => {
        if (isFault(step)) faults.begin(step);
        else void clientStep(world, clients, cast, step);
      });
    }
    await scheduler.runUntil(beginMs + plan.lengthMs);
    faults.end();
    world.trace(() => 'all faults are over');
    await conclude(world, clients, cast);
  } finally {
    process.off('unhandledRejection', unhandled);
    world.end();
  }
  return { violations: model.violations, steps: scheduler.steps, lines: world.lines };
}

const isFault = (step: Plan['steps'][number]): step is Exclude<Plan['steps'][number], ClientStep> =>
  FAULTS.has(step.do);

async function setUp(world: World, clients: Clients): Promise<Cast> {
  const { scheduler, database } = world;
  const admin = new Account('admin@example.com', 'correct horse battery staple');
  const accounts = Array.from(
    { length: ACCOUNTS },
    (_, index) => new Account(`user${index + 1}@example.com`, 'correct horse battery staple'),
  );
  const work = async () => {
    await clients.register(admin, 0);
    // As `npm run admin -- grant` does, before anything is cached.
    database.execute(`UPDATE users SET role = 'admin' WHERE id = '${admin.id}'`);
    await clients.login(admin, { isolate: 0 });
    admin.role = 'admin';
    await Promise.all(
      accounts.map(async (account, index) => {
        await clients.register(account, index % ISOLATES);
        await clients.login(account, { isolate: (index + 1) % ISOLATES });
      }),
    );
  };
  let failure: unknown = new Error('the accounts were not made in time');
  void work().then(
    () => (failure = undefined),
    (error: unknown) => (failure = error),
  );
  await scheduler.runUntil(BEGIN_MS + SETUP_MS);
  if (failure !== undefined) throw failure;
  return { admin: admin.devices.at(-1)!, accounts };
}

/** Faults are over: what was acknowledged comes into force, and the outbox drains. */
async function conclude(world: World, clients: Clients, cast: Cast): Promise<void> {
  const { scheduler, model, database } = world;
  const beginMs = scheduler.nowMs;
  const every = (ms: number, run: () => void) => scheduler.at(beginMs + ms, run);
  for (let index = 0; index < FINAL_CRONS; index += 1) {
    every(1_000 + index * CRON_MS, () => void world.cron(index % ISOLATES));
  }
  // Requests are what lets a breaker find out that Redis is back.
  for (let ms = 500; ms < 2 * CRON_MS; ms += 5_000) {
    for (let isolate = 0; isolate < ISOLATES; isolate += 1)
      every(ms + isolate * 10, () => void clients.read(cast.admin, { isolate }));
  }
  const devices = cast.accounts.flatMap((account) => account.devices);
  every(2 * CRON_MS + 5_000, () => {
    for (const device of devices) {
      for (let isolate = 0; isolate < ISOLATES; isolate += 1) void probe(clients, device, isolate);
    }
  });
  every(2 * CRON_MS + 20_000, () => {
    for (const [index, device] of devices.entries()) {
      if (!device.signedOut) void clients.read(device, { isolate: index % ISOLATES });
    }
  });
  await scheduler.runUntil(beginMs + FINAL_CRONS * CRON_MS);
  for (const { id, email, deleted, restoredMs, devices: all } of cast.accounts) {
    if (deleted === undefined || deleted.ackedMs > beginMs) continue;
    // After a recovery the database does not know the sessions that were begun since the moment it went back to.
    const known = all.filter(({ forgotten }) => !forgotten);
    const isForgotten = (key: string) =>
      restoredMs !== undefined &&
      key.includes(`{${id}}.`) &&
      !known.some(({ sessionId }) => isOfSession(key, sessionId));
    // What is about the account alone must be gone; a list of users has its e-mail until it expires, but is not served.
    const found = world.redis
      .texts()
      .find(({ key, text }) => key.includes(id) && text.includes(email) && !isForgotten(key));
    if (found !== undefined)
      model.violate('personal', scheduler.nowMs, `${found.key} holds ${email}, which was deleted`);
  }
  for (const name of begunTwice(world))
    model.violate('once', scheduler.nowMs, `the login of ${String(name)} has begun more than one session`);
  const left = database.execute(UNDELIVERED);
  if (left.length > 0) {
    model.violate('outbox', scheduler.nowMs, `${left.length} messages are left, the first ${JSON.stringify(left[0])}`);
  }
}

/** Whether a key of Redis is of this session: its user, the first part of its id, stands in a hash tag. */
const isOfSession = (key: string, sessionId: string) => key.replaceAll(/[{}]/g, '').includes(sessionId);

async function probe(clients: Clients, device: Device, isolate: number): Promise<void> {
  const ended = [...device.ends()].some(({ ackedMs }) => Number.isFinite(ackedMs));
  for (const token of device.copies.slice(-2)) await clients.thief(device, token, 'access', { isolate });
  if (ended) await clients.thief(device, device.refresh, 'refresh', { isolate });
}
