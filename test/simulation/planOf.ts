import type { DatabaseKind } from './database.ts';
import { ACCOUNTS, ISOLATES } from './plan.ts';
import type { ByClient, ClientStep, Fault, Plan, Step } from './plan.ts';
import { withMore } from './planMore.ts';
import { createRandom } from './random.ts';
import type { Random } from './random.ts';
import { SHARDS } from './redis.ts';

const CLIENT_STEPS: readonly [ClientStep['do'], number][] = [
  ['read', 22],
  ['burst', 4],
  ['refresh', 10],
  ['login', 5],
  ['logout', 6],
  ['logout-all', 2],
  ['rename', 7],
  ['devices', 2],
  ['delete', 1],
  ['password', 2],
  ['revoke-access', 3],
  ['revoke-refresh', 2],
  ['end-device', 3],
  ['thief-access', 14],
  ['thief-refresh', 10],
  ['steal', 1],
  ['list', 3],
  ['inspect', 4],
  ['role', 2],
  ['disable', 2],
  ['enable', 2],
  ['guess', 5],
];

/** The same plan for each database, and for PostgreSQL more of what happens to it. */
export function planOf(seed: number, database: DatabaseKind): Plan {
  const plan = withMore(commonPlanOf(seed));
  if (database === 'd1') return plan;
  const { replicas: _, ...common } = plan;
  const steps = [...common.steps, ...postgresStepsOf(createRandom(seed, 'postgres'), plan)];
  return { ...common, steps: steps.sort((a, b) => a.at - b.at) };
}

function commonPlanOf(seed: number): Plan {
  const random = createRandom(seed, 'plan');
  const lengthMs = random.pick([60_000, 180_000, 300_000]);
  const clocks = Array.from({ length: ISOLATES }, () => ({
    offsetMs: random.chance(0.5) ? 0 : random.between(-2_000, 2_000),
    driftPpm: random.chance(0.7) ? 0 : random.between(-200, 200),
  }));
  const steps: Step[] = [...cronsOf(random, lengthMs), ...faultsOf(random, lengthMs)];
  // Clients are busy around faults, and now and then between them.
  const busy = steps.filter(({ do: what }) => what !== 'cron').map(({ at }) => at);
  const count = random.between(25, 70);
  for (let index = 0; index < count; index += 1) {
    const near = busy.length > 0 && random.chance(0.6);
    const at = near ? random.pick(busy) + random.between(-2_000, 8_000) : random.between(0, lengthMs);
    steps.push(clientStep(random, Math.min(Math.max(0, at), lengthMs)));
  }
  const chases = random.between(0, 3);
  for (let index = 0; index < chases; index += 1) {
    const near = busy.length > 0 && random.chance(0.8);
    const at = near ? random.pick(busy) + random.between(0, 20_000) : random.between(0, lengthMs);
    steps.push(...chase(random, at));
  }
  steps.sort((a, b) => a.at - b.at);
  const replicas = random.chance(0.25) && { replicas: true };
  const within = random.chance(0.4) && { withinMs: random.pick([300, 1_000, 4_000]) };
  return { seed, clocks, ...replicas, ...within, lengthMs, steps };
}

function clientStep(random: Random, at: number): ClientStep {
  const base: ByClient = {
    at,
    isolate: random.between(0, ISOLATES - 1),
    account: random.between(0, ACCOUNTS - 1),
    device: random.between(0, 1_000),
    ...(random.chance(0.06) && { lose: random.pick(['request', 'response'] as const) }),
  };
  const what = weighted(random, CLIENT_STEPS);
  const count = random.between(2, what === 'burst' ? 12 : 9);
  return { ...base, do: what, ...((what === 'burst' || what === 'guess') && { count }) };
}

/** One isolate reads what another changes, shortly before, during and after the change. */
function chase(random: Random, at: number): ClientStep[] {
  const [account, device] = [random.between(0, ACCOUNTS - 1), random.between(0, 1_000)];
  const [writer, reader] = [random.between(0, ISOLATES - 1), random.between(0, ISOLATES - 1)];
  const step = (what: ClientStep['do'], offsetMs: number, isolate: number): ClientStep => ({
    do: what,
    at: Math.max(0, at + offsetMs),
    isolate,
    account,
    device,
  });
  const change = random.pick([
    'rename',
    'rename',
    'logout',
    'end-device',
    'disable',
    'password',
    'revoke-access',
  ] as const);
  const reads = Array.from({ length: 4 }, () => step('read', random.between(-1_500, 500), reader));
  const after = Array.from({ length: 4 }, () =>
    step(change === 'rename' ? 'read' : 'thief-latest', random.between(0, random.pick([500, 3_000, 40_000])), reader),
  );
  return [...reads, step(change, 0, writer), ...after];
}

function cronsOf(random: Random, lengthMs: number): Fault[] {
  const steps: Fault[] = [];
  for (let at = random.between(0, 60_000); at < lengthMs; at += 60_000) {
    if (random.chance(0.1)) continue;
    const late = random.chance(0.2) ? random.between(0, 30_000) : 0;
    steps.push({ do: 'cron', at: at + late, isolate: random.between(0, ISOLATES - 1) });
    if (random.chance(0.1)) {
      steps.push({ do: 'cron', at: at + late + random.between(0, 2_000), isolate: random.between(0, ISOLATES - 1) });
    }
  }
  return steps;
}

function faultsOf(random: Random, lengthMs: number): Fault[] {
  const episodes = random.pick([0, 1, 1, 2, 2, 3, 4]);
  const steps: Fault[] = [];
  for (let index = 0; index < episodes; index += 1) {
    const at = random.between(1_000, lengthMs);
    steps.push(...episode(random, at, lengthMs, index));
  }
  const kills = random.pick([0, 0, 1, 2]);
  for (let index = 0; index < kills; index += 1) {
    steps.push({ do: 'kill', at: random.between(0, lengthMs), isolate: random.between(0, ISOLATES - 1) });
  }
  if (random.chance(0.3)) {
    steps.push({
      do: 'clock',
      at: random.between(0, lengthMs),
      isolate: random.between(0, ISOLATES - 1),
      byMs: random.between(-500, 500),
    });
  }
  return steps;
}

/**
 * Transactions that meet others, connections that break while one is under way, and more of what else happens to a database, with
 * clients that are busy meanwhile.
 */
function postgresStepsOf(random: Random, { lengthMs }: Plan): Step[] {
  const steps: Step[] = [];
  const whats = random.pick([
    ['conflicts'],
    ['cuts'],
    ['conflicts', 'cuts'],
    ['conflicts', 'flaky'],
    ['slow', 'cuts'],
    ['away', 'fails'],
    ['hang', 'flaky'],
    [],
  ] as const);
  for (const what of whats) {
    const at = random.between(1_000, lengthMs);
    const forMs = random.between(500, 8_000);
    if (what === 'conflicts') steps.push({ do: 'database-conflicts', at, forMs });
    else if (what === 'fails') steps.push({ do: 'database-fails', at, count: random.between(1, 3) });
    else steps.push({ do: 'database', at, mode: what, forMs, ...oneIsolate(random) });
    for (let index = 0; index < 8; index += 1) steps.push(clientStep(random, at + random.between(-200, forMs)));
  }
  return steps;
}

/** Faults that come together. */
function episode(random: Random, at: number, lengthMs: number, index: number): Fault[] {
  const forMs = random.pick([
    random.between(200, 3_000),
    random.between(3_000, 20_000),
    random.between(20_000, 90_000),
  ]);
  const kind = random.pick([
    'network',
    'network',
    'network',
    'state',
    'refusal',
    'shard',
    'flush',
    'restore',
    'restore',
    'failover',
    'recovery',
    'database',
    'both',
  ] as const);
  const database = (): Fault => ({
    do: 'database',
    at,
    mode: random.pick(['away', 'hang', 'flaky', 'slow'] as const),
    forMs: random.between(200, 8_000),
    ...oneIsolate(random),
  });
  const network = (): Fault => ({
    do: 'network',
    at,
    mode: random.pick(['away', 'away', 'hang', 'flaky', 'slow', 'garbage', 'status'] as const),
    forMs,
    ...(random.chance(0.4) && oneIsolate(random)),
  });
  switch (kind) {
    case 'network':
      return [network()];
    case 'state':
      return [
        {
          do: 'state',
          at,
          state: random.pick(['loading', 'readonly', 'readonly-6', 'oom', 'misconf'] as const),
          forMs,
        },
      ];
    case 'refusal':
      return [
        {
          do: 'refusal',
          at,
          kind: random.pick(['too-large', 'key-too-large', 'wrong-type'] as const),
          ...refused(random),
          forMs,
        },
      ];
    case 'shard':
      return [{ do: 'shard', at, shard: random.between(0, SHARDS - 1), forMs }];
    case 'flush':
      return [{ do: 'flush', at, ...oneShard(random) }];
    case 'restore': {
      // Stock `save` rules: the newest snapshot may be minutes old.
      const label = `snapshot ${index}`;
      const age = random.pick([random.between(0, 5_000), random.between(5_000, 200_000)]);
      const shard = oneShard(random);
      return [
        { do: 'save', at: Math.max(0, at - age), label },
        ...(random.chance(0.4)
          ? [
              {
                do: 'network' as const,
                at: Math.max(0, at - 500),
                mode: 'away' as const,
                forMs: 500 + random.between(0, 3_000),
              },
            ]
          : []),
        { do: 'restore', at: Math.min(at, lengthMs), label, ...shard },
      ];
    }
    case 'failover': {
      // The replica that takes over lacks the last moments.
      const label = `replica ${index}`;
      return [
        { do: 'save', at: Math.max(0, at - random.between(1, 2_000)), label },
        { do: 'restore', at, label, ...oneShard(random) },
      ];
    }
    case 'recovery': {
      // An operator takes D1 back to a moment before (its Time Travel); Redis stays as it is.
      const label = `bookmark ${index}`;
      return [
        { do: 'database-saves', at: Math.max(0, at - random.between(1_000, 100_000)), label },
        { do: 'database-restores', at, label },
      ];
    }
    case 'database':
      return random.chance(0.5) ? [database()] : [{ do: 'database-fails', at, count: random.between(1, 3) }];
    case 'both':
      return [
        network(),
        random.chance(0.5)
          ? { ...database(), at: at + random.between(0, forMs) }
          : { do: 'database-fails', at: at + random.between(0, forMs), count: random.between(1, 3) },
      ];
  }
}

function refused(random: Random): { name: string; part: string } {
  return random.pick([
    { name: 'EVALSHA', part: ':user:' },
    { name: 'EVALSHA', part: ':session:' },
    { name: 'EVALSHA', part: ':auth:' },
    { name: 'SET', part: ':user:' },
    { name: 'SET', part: ':cache:' },
    { name: 'HMGET', part: ':auth:' },
    { name: 'MGET', part: ':user:' },
  ]);
}

/** It may be one isolate's way alone that is bad. */
const oneIsolate = (random: Random) => (random.chance(0.4) ? { only: random.between(0, ISOLATES - 1) } : {});

const oneShard = (random: Random) => (random.chance(0.3) ? { shard: random.between(0, SHARDS - 1) } : {});

function weighted<T>(random: Random, items: readonly (readonly [T, number])[]): T {
  let left = random.next() * items.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [item, weight] of items) {
    left -= weight;
    if (left < 0) return item;
  }
  return items[0]![0];
}
