import { ACCOUNTS, ISOLATES } from './plan.ts';
import type { ClientStep, Fault, Plan, Step } from './plan.ts';
import { createRandom } from './random.ts';
import type { Random } from './random.ts';

/** Half of the plans get more of what seldom comes by itself; the others are what they were without this file. */
const SHARE = 0.5;

/** A request and the work after its response take about so long. */
const REQUEST_MS = 90;

/** Adds isolates that die in the middle of something, a Redis that comes and goes, and clients of what few routes use. */
export function withMore(plan: Plan): Plan {
  const random = createRandom(plan.seed, 'more');
  if (!random.chance(SHARE)) return plan;
  const flaps = random.chance(0.3) ? flapping(random, random.between(1_000, plan.lengthMs)) : [];
  const steps = [...plan.steps, ...flaps];
  const busyMs = steps.filter(({ do: what }) => what !== 'cron').map(({ at }) => at);
  const near = () =>
    busyMs.length > 0 && random.chance(0.6)
      ? Math.min(plan.lengthMs, Math.max(0, random.pick(busyMs) + random.between(-2_000, 8_000)))
      : random.between(0, plan.lengthMs);
  if (random.chance(0.6)) steps.push(...callers(random, near()));
  if (random.chance(0.4)) steps.push(...workers(random, near()));
  if (random.chance(0.5)) steps.push(...keyed(random, near));
  if (random.chance(0.3)) steps.push(...deaths(random, steps));
  // What is drawn from here on changes nothing above.
  const mail = random.chance(0.3);
  if (mail) steps.push(...Array.from({ length: random.between(1, 3) }, () => client(random, 'recover', near())));
  if (random.chance(0.6)) steps.push(...ownCode(random, near));
  return { ...plan, ...(mail && { mail }), steps: steps.sort((a, b) => a.at - b.at) };
}

const client = (random: Random, what: ClientStep['do'], at: number): ClientStep => ({
  do: what,
  at,
  isolate: random.between(0, ISOLATES - 1),
  account: random.between(0, ACCOUNTS - 1),
  device: random.between(0, 1_000),
  ...(random.chance(0.2) && { lose: random.pick(['request', 'response'] as const) }),
});

/** Redis goes and comes back, again and again. */
function flapping(random: Random, fromMs: number): Fault[] {
  const steps: Fault[] = [];
  const times = random.between(4, 12);
  for (let at = fromMs, index = 0; index < times; index += 1) {
    const forMs = random.between(50, random.pick([500, 3_000]));
    steps.push({ do: 'network', at, mode: random.pick(['away', 'away', 'hang', 'status'] as const), forMs });
    at += forMs + random.between(50, random.pick([500, 3_000, 12_000]));
  }
  return steps;
}

/** A caller who uses up a limit, over all isolates, and an administrator who changes it meanwhile. */
function callers(random: Random, fromMs: number): ClientStep[] {
  const account = random.between(0, ACCOUNTS - 1);
  const forMs = random.pick([20_000, 60_000, 100_000]);
  const calls = Array.from({ length: random.between(6, 25) }, () => ({
    ...client(random, 'busy', fromMs + random.between(0, forMs)),
    account,
    count: random.between(1, 16),
  }));
  const changes = Array.from({ length: random.pick([0, 0, 1, 2]) }, () => ({
    ...client(random, 'override', Math.max(0, fromMs + random.between(-20_000, forMs / 2))),
    maxRequests: random.pick([8, 15, 60]),
  }));
  return [...calls, ...changes];
}

/** Requests that all want one lock. */
function workers(random: Random, fromMs: number): ClientStep[] {
  return Array.from({ length: random.between(3, 12) }, () => {
    const leaseMs = random.pick([300, 1_000, 4_000]);
    return {
      ...client(random, 'lock', fromMs + random.between(0, 12_000)),
      lock: { leaseMs, workMs: random.between(0, 2 * leaseMs), waitMs: random.pick([0, 500, 3_000]) },
    };
  });
}

function keyed(random: Random, near: () => number): ClientStep[] {
  return Array.from({ length: random.between(1, 5) }, () =>
    client(random, random.pick(['login-once', 'rename-once'] as const), near()),
  );
}

/** Code of the app's own reads beside those that change what it reads. */
function ownCode(random: Random, near: () => number): ClientStep[] {
  return Array.from({ length: random.between(2, 6) }, () => {
    const what = random.pick(['rename', 'rename', 'logout', 'logout-all', 'end-sessions', 'end-device'] as const);
    const change = client(random, what, near());
    const read = what === 'rename' ? 'own-name' : 'own-session';
    const reads = Array.from({ length: random.between(2, 8) }, () => ({
      ...client(
        random,
        random.pick([read, read, read, 'thief-retired', 'read-unlimited', 'thief-unlimited'] as const),
        0,
      ),
      at: Math.max(0, change.at + random.between(-2_000, random.pick([300, 4_000, 50_000]))),
      account: change.account,
    }));
    return [change, ...reads];
  }).flat();
}

/** Isolates die while they serve a change, or while the cron runs. */
function deaths(random: Random, steps: readonly Step[]): Fault[] {
  const changes = steps.filter(
    (step): step is Extract<Step, { isolate: number }> =>
      'isolate' in step && step.do !== 'kill' && step.do !== 'clock' && step.do !== 'read' && step.do !== 'busy',
  );
  if (changes.length === 0) return [];
  return Array.from({ length: random.between(1, 4) }, () => {
    const { at, isolate } = random.pick(changes);
    return { do: 'kill', at: at + random.between(1, REQUEST_MS), isolate };
  });
}
