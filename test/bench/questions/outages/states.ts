import { setTimeout } from 'node:timers/promises';

import { slotOf } from '../../../../src/gateway/slots.ts';
import type { LoadFigures } from '../../question.ts';
import type { Target } from '../../support/load.ts';
import type { DatabaseCounts } from '../../support/database.ts';
import { databaseFigures, latencyFigures, load, rounded } from '../../support/measure.ts';
import type { BenchRedis } from '../../support/redis.ts';
import type { SetUp } from './setUp.ts';

export const CONNECTIONS = 4;
const USERS = 96;
/** The third shard's slots, as `startCluster()` deals them. */
const DEAD_FROM = 10_923;
const ADDRESS = { 'CF-Connecting-IP': '203.0.113.7' };

export interface User {
  id: string;
  access: string;
  refresh: string;
}

interface Tokens {
  access_token: string;
  refresh_token: string;
}

export async function registerUsers({ url }: SetUp): Promise<User[]> {
  const users: User[] = [];
  for (let index = 0; index < USERS; index += 1) {
    const person = { email: `outage${index}@example.com`, password: 'correct horse battery', name: `Bench ${index}` };
    const response = await fetch(`${url}/v1/auth/register`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...ADDRESS },
      body: JSON.stringify(person),
    });
    if (response.status !== 201) throw new Error(`the app answered ${response.status} to a registration`);
    const body = (await response.json()) as Tokens & { user: { id: string } };
    users.push({ id: body.user.id, access: body.access_token, refresh: body.refresh_token });
  }
  return users;
}

export const isOnDeadShard = ({ id }: User): boolean => slotOf(`{${id}}`) >= DEAD_FROM;

/** Users by turns; each belongs to one connection, so that no two requests show the same refresh token at once. */
function turns(users: readonly User[]) {
  const groups = Array.from({ length: CONNECTIONS }, (_, connection) => ({
    users: users.filter((__, index) => index % CONNECTIONS === connection),
    turn: 0,
  }));
  return {
    next: (connection: number): User => {
      const group = groups[connection]!;
      group.turn += 1;
      return group.users[group.turn % group.users.length]!;
    },
    last: (connection: number): User => {
      const group = groups[connection]!;
      return group.users[group.turn % group.users.length]!;
    },
  };
}

function guardedGet({ url }: SetUp, users: readonly User[]): Target {
  const { next } = turns(users);
  return {
    url: `${url}/v1/users/me`,
    headers: ADDRESS,
    next: (connection) => ({ headers: { Authorization: `Bearer ${next(connection).access}` } }),
  };
}

function refreshing({ url }: SetUp, users: readonly User[]): Target {
  const { next, last } = turns(users);
  return {
    url: `${url}/v1/auth/refresh`,
    headers: ADDRESS,
    next: (connection) => ({ body: JSON.stringify({ refresh_token: next(connection).refresh }) }),
    answered(body, connection) {
      const tokens = JSON.parse(body) as Tokens;
      Object.assign(last(connection), { access: tokens.access_token, refresh: tokens.refresh_token });
    },
  };
}

export interface MeasureOptions {
  /** Requests of each user in a round. */
  each: number;
  rounds: number;
  /** Before each round, uncounted. */
  before?: () => Promise<unknown>;
}

/** A guarded GET and a refresh by these users: what each costs the database and Redis, the work after the response included. */
export async function measure(
  setUp: SetUp,
  redis: BenchRedis,
  users: readonly User[],
  { each, rounds, before = async () => undefined }: MeasureOptions,
): Promise<LoadFigures[]> {
  const figures: LoadFigures[] = [];
  for (const [name, target] of [
    ['guarded GET', guardedGet(setUp, users)],
    ['refresh', refreshing(setUp, users)],
  ] as const) {
    const latenciesMs: number[] = [];
    const sum = { trips: 0, commands: 0 };
    const total: DatabaseCounts = { trips: 0, batches: 0, queries: 0, rowsRead: 0, rowsWritten: 0 };
    for (let round = 0; round < rounds; round += 1) {
      await before();
      const start = await redis.counts();
      const cost = await setUp.database.costOf(async () => {
        latenciesMs.push(...(await load(name, target, CONNECTIONS, { requests: each * users.length })).latenciesMs);
        await setTimeout(150);
      });
      const end = await redis.counts();
      sum.trips += end.trips - start.trips;
      sum.commands += end.commands - start.commands;
      for (const key of Object.keys(total) as (keyof DatabaseCounts)[]) total[key] += cost[key];
    }
    const perRequest = (count: number) => rounded(count / latenciesMs.length);
    figures.push({
      load: name,
      connections: CONNECTIONS,
      ...latencyFigures(latenciesMs),
      roundTrips: perRequest(sum.trips),
      commands: perRequest(sum.commands),
      ...databaseFigures(total, latenciesMs.length),
    });
  }
  return figures;
}
