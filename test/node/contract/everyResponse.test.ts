import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { openApi, operations } from '../../support/contract/contract.ts';
import type { Documented } from '../../support/contract/contract.ts';
import { lifeOf, rowOf, rows } from '../docs/dataPage.ts';
import { startScene } from '../faults/scene.ts';
import type { Account, SignedIn } from '../faults/scene.ts';
import { OWN, VALID } from './requests.ts';
import { senderTo, startWorld } from './world.ts';
import type { Request, World } from './world.ts';

/** Every operation, status and code of the document, as `operation status code`. */
const documented = operations.flatMap(({ name, operation }) =>
  Object.entries(operation.responses).flatMap(([status, { content = {} }]) => {
    const codes = Object.keys(content['application/problem+json']?.examples ?? {});
    const places = codes.map((code) => `${name} ${status} ${code}`);
    if (content['application/json'] !== undefined || codes.length === 0) places.push(`${name} ${status}`);
    return places;
  }),
);
const documentedOf = (operation: Documented) => documented.filter((place) => place.startsWith(`${operation.name} `));

/** Nothing brings about a bug. It is enough that one of them was seen, in one operation. */
const ofAnyOperation = (place: string) => place.includes(' default ');

let world: World;
const seen = new Set<string>();
const faults: string[] = [];

function collect(from: Pick<World, 'seen' | 'faults'>): void {
  for (const place of from.seen) seen.add(place);
  faults.push(...from.faults);
}

beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world[Symbol.asyncDispose]());

const needsAdmin = ({ operation }: Documented) =>
  operation.responses['403']?.content?.['application/problem+json']?.examples?.['FORBIDDEN'] !== undefined;
const needsToken = ({ operation }: Documented) => operation.security.length > 0;
const hasBody = ({ operation }: Documented) => operation.requestBody !== undefined;

async function callerOf(of: World, target: Documented): Promise<Account & SignedIn> {
  return needsAdmin(target) ? of.admin : of.newUser();
}

async function valid(of: World, target: Documented): Promise<Request> {
  const caller = await callerOf(of, target);
  const make = VALID[target.name];
  if (make !== undefined) return make(of, caller);
  return needsToken(target) ? { token: caller.access } : {};
}

/** How many requests the smallest limit of a response admits. */
function quotaOf(headers: Headers): number {
  const quotas = [...(headers.get('RateLimit-Policy') ?? '').matchAll(/;q=(\d+)/g)].map(([, quota]) => Number(quota));
  return Math.min(1_000, ...quotas);
}

/** A request that was sent, with its `Idempotency-Key`. */
async function executed(target: Documented): Promise<Request> {
  const request = { ...(await valid(world, target)), headers: { 'Idempotency-Key': `"${crypto.randomUUID()}"` } };
  await world.send(target, request);
  return request;
}

/** A valid request of this operation, for all that are refused before they change anything. */
const refusables = new Map<string, Promise<Request>>();

function refusable(target: Documented): Promise<Request> {
  const known = refusables.get(target.name) ?? valid(world, target);
  refusables.set(target.name, known);
  return known;
}

/** Access tokens that are refused, and stay so: one of each serves all operations. */
const REFUSED_TOKENS = {
  expired: async () => world.expired(await world.newUser()),
  async revoked() {
    const { access } = await world.newUser();
    await world.scene.call('POST', '/v1/auth/logout', { token: access });
    return access;
  },
  async superseded() {
    const { id, access } = await world.newUser();
    const change = { token: world.admin.access, body: { role: 'admin' } };
    await world.scene.call('PATCH', `/v1/users/${id}`, change);
    return access;
  },
  async 'old login'() {
    const user = await world.newUser();
    await world.scene.app.sql('UPDATE sessions SET created_at_ms = 1 WHERE id = ?', user.sessionId);
    const { body } = await world.scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: user.refresh } });
    return (body as { access_token: string }).access_token;
  },
  'not an administrator': async () => (await world.newUser()).access,
};

const refusedTokens = new Map<string, Promise<string>>();

function refused(kind: keyof typeof REFUSED_TOKENS): Promise<string> {
  const known = refusedTokens.get(kind) ?? REFUSED_TOKENS[kind]();
  refusedTokens.set(kind, known);
  return known;
}

/** How each code comes about wherever it stands. `undefined`: not in this way here. */
const MEANS: Readonly<Record<string, (target: Documented) => Promise<Request | undefined>>> = {
  AUTHENTICATION_REQUIRED: async (target) => ({ ...(await refusable(target)), token: undefined as never }),
  INVALID_TOKEN: async (target) => ({ ...(await refusable(target)), token: 'not.a.token' }),
  TOKEN_EXPIRED: async (target) => ({ ...(await refusable(target)), token: await refused('expired') }),
  TOKEN_REVOKED: async (target) => ({ ...(await refusable(target)), token: await refused('revoked') }),
  TOKEN_SUPERSEDED: async (target) => ({ ...(await refusable(target)), token: await refused('superseded') }),
  REAUTHENTICATION_REQUIRED: async (target) => ({ ...(await refusable(target)), token: await refused('old login') }),
  FORBIDDEN: async (target) => ({ ...(await refusable(target)), token: await refused('not an administrator') }),
  NOT_FOUND: async (target) => ({ ...(await refusable(target)), path: target.path.replace(/\{\w+\}/, 'none') }),
  MALFORMED_JSON: async (target) => ({ ...(await refusable(target)), body: '{' }),
  INVALID_ENCODING: async (target) => ({ ...(await refusable(target)), body: Buffer.from([0xff]) }),
  UNSUPPORTED_MEDIA_TYPE: async (target) => ({ ...(await refusable(target)), body: 'text', type: 'text/plain' }),
  BODY_TOO_LARGE: async (target) => ({ ...(await refusable(target)), body: ' '.repeat(70_000) }),
  IDEMPOTENCY_KEY_INVALID: async (target) => ({
    ...(await refusable(target)),
    headers: { 'Idempotency-Key': 'bare' },
  }),
  async IDEMPOTENCY_KEY_REUSED(target) {
    const request = await executed(target);
    return { ...request, path: `${request.path ?? target.path}?other=1` };
  },
  async IDEMPOTENCY_KEY_IN_USE(target) {
    const request = await executed(target);
    const { redis, app } = world.scene;
    await redis.idle();
    // As if it had just been claimed.
    await app.sql('DELETE FROM idempotency_keys');
    for (const key of (await redis.engine('KEYS', 'app:idempotency:*')) as string[]) {
      const value = String(await redis.engine('GET', key)).replace('done', 'running');
      await redis.engine('SET', key, value, 'PX', 60_000);
    }
    return request;
  },
  async IDEMPOTENCY_RESPONSE_LOST(target) {
    const { redis, app } = world.scene;
    const keys = async () => (await redis.engine('KEYS', 'app:idempotency:*')) as string[];
    // Those of IDEMPOTENCY_KEY_IN_USE run on.
    for (const key of await keys()) await redis.engine('DEL', key);
    const request = await executed(target);
    // The response is stored in the database before Redis has `done`.
    const unfinished = async () => {
      const values = await Promise.all((await keys()).map((key) => redis.engine('GET', key)));
      return values.filter((value) => String(value).includes('running'));
    };
    await expect.poll(unfinished, { timeout: 30_000 }).toEqual([]);
    await app.sql('UPDATE idempotency_keys SET response = NULL');
    return request;
  },
  async VALIDATION_FAILED(target) {
    const request = await refusable(target);
    if (hasBody(target)) return { ...request, body: [] };
    const path = target.path.replace(/\{\w+\}/, 'x'.repeat(200));
    return {
      ...request,
      path: target.operation.parameters?.some((one) => one.in === 'query') ? `${path}?none=1` : path,
    };
  },
};

describe('every documented success', () => {
  it.each(operations)('$name', async (target) => {
    const request = await valid(world, target);
    const { status, headers } = await world.send(target, request);
    if (target.operation['x-idempotent'] === true) {
      // As the document says: no key is needed.
      expect(await world.send(target, request)).toMatchObject({ status });
    }
    if ('304' in target.operation.responses) {
      const given = { ...request.headers, 'If-None-Match': headers.get('ETag') ?? '' };
      await world.send(target, { ...request, headers: given });
      expectSeen(world, `${target.name} 304`);
    }
    const successes = documentedOf(target).filter((place) => / 2\d\d$/.test(place));
    for (const place of successes) {
      const own = OWN[place];
      if (own !== undefined) await world.send(target, await own(world, await callerOf(world, target)));
      expectSeen(world, place);
    }
  });
});

/** A route of one's own needs a request here as well. */
function expectSeen({ seen: responses }: World, place: string): void {
  expect(responses.has(place), `${place} was never sent: add a request to test/node/contract/requests.ts`).toBe(true);
}

describe('every documented error', () => {
  it.each(operations)('$name', async (target) => {
    for (const place of documentedOf(target)) {
      const code = place.slice(target.name.length + 1).split(' ')[1] ?? '';
      const own = OWN[place];
      const request = own === undefined ? await MEANS[code]?.(target) : await own(world, await callerOf(world, target));
      if (request === undefined || code === '') continue;
      await world.send(target, request);
      expectSeen(world, place);
    }
  });

  it('a limit that is used up', async () => {
    const names = [
      'LOGIN',
      'LOGIN_ADDRESS',
      'API',
      'ADMIN',
      'ACCOUNT',
      'REFRESH',
      'RECOVERY',
      'RECOVERY_ACCOUNT',
      'VERIFICATION',
      'ONE_TIME_TOKEN',
    ];
    await using limited = await startWorld({
      ...Object.fromEntries(names.map((name) => [`LIMIT_${name}`, '1/1h'])),
      LIMIT_REGISTER: '1/1h',
    });
    // From one address: what is counted by address adds up.
    const headers = { 'CF-Connecting-IP': '203.0.113.9' };
    const me = operations.find(({ name }) => name === 'GET /v1/users/me')!;
    const none = { body: { token: 'none' } };
    const confirmations: Record<string, Request> = {
      'POST /v1/auth/recovery/confirm': { body: { ...none.body, newPassword: 'a whole new password' } },
      'POST /v1/auth/verification/confirm': none,
      'POST /v1/auth/email/confirm': none,
      'POST /v1/auth/email/undo': none,
      'POST /v1/auth/deletion/confirm': none,
    };
    const wrongPassword = 'POST /v1/auth/reauthenticate';
    // These end the token that they are sent with: without a good one they are counted by address.
    const ending = /^POST \/v1\/auth\/(?:logout|logout-all|password)$|^DELETE \/v1\/(?:users\/me|sessions\/\{id\})$/;
    for (const target of operations.filter(({ operation }) => '429' in operation.responses)) {
      const caller = await limited.newUser();
      // A right password is not counted.
      const wrong = { token: caller.access, body: { password: 'not this one' } };
      const own = target.name === wrongPassword ? wrong : confirmations[target.name];
      const usual = own ?? (await VALID[target.name]?.(limited, caller)) ?? { token: caller.access };
      const request = ending.test(target.name) ? { ...usual, token: 'not.a.token' } : usual;
      // A request may end its own token, or be of a role that it may not be: the limit of this one decides before.
      if (needsToken(target)) await limited.send(me, { token: caller.access });
      const place = `${target.name} 429 RATE_LIMITED`;
      // A route with numbers of its own takes as many as it says.
      let most = 2;
      for (let time = 0; time < most && !limited.seen.has(place); time += 1) {
        const { headers: given } = await limited.send(target, { headers, ...request });
        if (given.has('RateLimit-Policy')) most = 1 + quotaOf(given);
      }
      expect(limited.seen).toContain(place);
    }
    collect(limited);
  });

  it('Redis and the database away', async () => {
    const requests: [Documented, Request][] = [];
    for (const target of operations) requests.push([target, await valid(world, target)]);
    await world.scene.app.database('away');
    world.scene.redis.mode = { kind: 'refuse' };
    for (const [target, request] of requests) await world.send(target, request);
    await world.scene.app.database('here');
    await world.scene.redis.clear();
    const unavailable = documented.filter((place) => place.endsWith(' 503 SERVICE_UNAVAILABLE'));
    expect(unavailable.filter((place) => !world.seen.has(place))).toEqual([]);
  });

  it('a setting that is wrong', async () => {
    await using wrong = await startScene({ LIMIT_API: 'many' });
    const sender = senderTo(wrong.app.url);
    for (const target of operations) {
      expect(await sender.send(target)).toMatchObject({ status: 503, body: { code: 'CONFIG_INVALID' } });
    }
    collect(sender);
  });

  it('changes that are not accepted', async () => {
    await using closed = await startScene({ READ_ONLY: 'true' });
    const sender = senderTo(closed.app.url);
    for (const target of operations.filter(({ method }) => method !== 'GET')) {
      const { status, body } = await sender.send(target);
      if (target.path === '/v1/admin/limits/peek') expect(status).toBe(401);
      else expect({ status, body }).toMatchObject({ status: 503, body: { code: 'READ_ONLY' } });
    }
    collect(sender);
  });

  it('a bug', async () => {
    const { id, access } = await world.newUser();
    // No code of ours writes such a time.
    await world.scene.app.sql('update users set created_at_ms = 9e15 where id = ?', id);
    const target = operations.find(({ name }) => name === 'GET /v1/users/me')!;
    expect(await world.send(target, { token: access })).toMatchObject({ status: 500, body: { code: 'INTERNAL' } });
  });
});

const DAY = 86_400;

/** How long keys of a row of docs/data.md live at most, in seconds, and the words of the page for it. */
const LIVES: Readonly<Record<string, [mostSeconds: number, words: string]>> = {
  'auth:blacklist:{user}': [31 * DAY, '`REFRESH_ABSOLUTE_TTL_SECONDS` and a day'],
  'session:{user}.…': [30 * DAY, 'at most to the absolute end'],
  'auth:heartbeat:{…}': [370 * DAY, '370 days'],
  'user:{user}': [600 + 3_600, '`USER_CACHE_TTL_SECONDS`, and `STALE_IF_ERROR_SECONDS`'],
  'user:{user}:…': [300 + 3_600, 'lists `LIST_CACHE_TTL_SECONDS`'],
  'user:{user}:nonce': [7 * DAY, '7 days'],
  'ratelimit:policy:{hash}': [1.01 * DAY, 'until nothing in it counts any more'],
  'ratelimit:{overrides}': [150, '150 seconds'],
  'lock:{name}': [DAY, 'a day at most'],
  'idempotency:{hash}': [60, '30 seconds while it runs, a minute after it'],
  'cache:warming:{job}': [DAY, 'a day, or'],
  'metrics:{all}:totals': [30 * DAY, '30 days'],
  'probe:{…}': [60, 'a minute'],
};

describe('Redis, after all operations', () => {
  it('holds keys of the kinds that docs/data.md lists, for no longer than it says', async () => {
    expect(Object.keys(LIVES).toSorted()).toEqual(rows.toSorted());
    for (const [row, [, words]] of Object.entries(LIVES)) expect(lifeOf(row)).toContain(words);
    const { redis } = world.scene;
    const longest = new Map<string, number>();
    const unknown: string[] = [];
    let cursor = '0';
    do {
      const [next, keys] = (await redis.engine('SCAN', cursor, 'COUNT', 1_000)) as [string, string[]];
      cursor = next;
      for (const key of keys) {
        const row = rowOf(key.slice('app:'.length));
        const lifeMs = Number(await redis.engine('PTTL', key));
        if (row === undefined) unknown.push(key);
        // -2: it has expired since.
        else if (lifeMs !== -2) longest.set(row, Math.max(longest.get(row) ?? 0, lifeMs / 1_000));
      }
    } while (cursor !== '0');
    expect(unknown).toEqual([]);
    const lives = [...longest].map(([row, seconds]) => ({ row, seconds, most: LIVES[row]![0] }));
    expect(lives.filter(({ seconds, most }) => !(seconds > 0 && seconds <= most))).toEqual([]);
    // These are written once and again, with the whole of their time.
    const whole = lives.filter(({ row }) => ['auth:blacklist:{user}', 'user:{user}:nonce'].includes(row));
    expect(whole).toHaveLength(2);
    expect(whole.filter(({ seconds, most }) => seconds < most - 3_600)).toEqual([]);
  });
});

describe('the document', () => {
  it('says nothing that was not seen, and nothing was seen that it does not say', () => {
    collect(world);
    expect([...new Set(faults)]).toEqual([]);
    const unseen = documented.filter((place) => !ofAnyOperation(place) && !seen.has(place));
    expect(unseen).toEqual([]);
    const general = new Set(documented.filter(ofAnyOperation).map((place) => place.split(' ').at(-1)));
    const codesSeen = new Set([...seen].map((place) => place.split(' ').at(-1)));
    expect([...general].filter((code) => !codesSeen.has(code))).toEqual([]);
  });

  it('says of each change that it takes an Idempotency-Key, or why a repeat needs none', () => {
    for (const { name, method, operation } of operations) {
      const takesKey = operation.parameters?.some((one) => one.name === 'Idempotency-Key') === true;
      const needsNone = operation['x-idempotent'] === true;
      const isChange = method !== 'GET';
      expect({ name, stated: Number(takesKey) + Number(needsNone) }).toEqual({ name, stated: isChange ? 1 : 0 });
      if (needsNone) expect(operation.description).toMatch(/repeat/);
    }
  });

  it('has an example for each code', () => {
    for (const { operation } of operations) {
      for (const { content = {} } of Object.values(operation.responses)) {
        for (const code of Object.keys(content['application/problem+json']?.examples ?? {})) {
          expect(openApi.components.examples[code]).toMatchObject({ value: { code } });
        }
      }
    }
  });
});
