import type { Account, SignedIn } from '../faults/scene.ts';
import { newcomer } from './world.ts';
import type { Request, World } from './world.ts';

type Make = (world: World, user: Account & SignedIn) => Request | Promise<Request>;

const PASSWORD = 'a whole new password';
const counter = (identity: string) => ({ policy: 'api', identity });

/** What is mailed to a new address. */
async function changeToken({ scene, mailbox }: World, { access: token }: SignedIn): Promise<string> {
  const { email } = newcomer();
  await scene.call('POST', '/v1/users/me/email', { token, body: { email } });
  return mailbox.tokenFor(email);
}

/** What is mailed for a deletion. */
async function deletionToken({ scene, mailbox }: World, email: string): Promise<string> {
  await scene.call('POST', '/v1/auth/deletion', { body: { email } });
  // The first mail verifies the address.
  await mailbox.tokenFor(email);
  return mailbox.tokenFor(email);
}

/** Those of `ownedRows(…)`. @param body of a new row */
function ofOwnRows(path: string, body: object): Record<string, Make> {
  const make = async ({ scene }: World, token: string) => {
    const made = await scene.call('POST', path, { token, body });
    return `${path}/${String((made.body as { id?: string }).id)}`;
  };
  return {
    [`POST ${path}`]: (_, { access }) => ({ token: access, body }),
    [`GET ${path}/{id}`]: async (world, { access }) => ({ token: access, path: await make(world, access) }),
    [`PATCH ${path}/{id}`]: async (world, { access }) => ({ token: access, path: await make(world, access), body }),
    [`DELETE ${path}/{id}`]: async (world, { access }) => ({ token: access, path: await make(world, access) }),
  };
}

/** Your own, by path. */
const OWN_ROWS: Readonly<Record<string, object>> = {};

/**
 * A request of each operation that succeeds once, for a user of its own. An operation that is not here is sent without a
 * body, with the user's token.
 */
export const VALID: Readonly<Record<string, Make>> = {
  ...Object.assign({}, ...Object.entries(OWN_ROWS).map(([path, body]) => ofOwnRows(path, body))),
  'POST /v1/auth/register': () => ({ body: { ...newcomer(), device: null } }),
  'POST /v1/auth/login': (_, { email, password }) => ({ body: { email, password, device: 'Phone' } }),
  'POST /v1/auth/refresh': (_, { refresh }) => ({ body: { refresh_token: refresh } }),
  'POST /v1/auth/revoke': (_, { refresh }) => ({ body: { token: refresh } }),
  'POST /v1/auth/reauthenticate': (_, { access, password }) => ({ token: access, body: { password } }),
  'POST /v1/users/me/email': (_, { access }) => ({ token: access, body: { email: newcomer().email } }),
  'POST /v1/auth/email/confirm': async (world, user) => ({ body: { token: await changeToken(world, user) } }),
  async 'POST /v1/auth/email/undo'(world, user) {
    const body = { token: await changeToken(world, user) };
    await world.mailbox.tokenFor(user.email); // the one that verifies the address
    await world.scene.call('POST', '/v1/auth/email/confirm', { body });
    return { body: { token: await world.mailbox.tokenFor(user.email) } };
  },
  'POST /v1/auth/password': (_, { access, password }) => ({
    token: access,
    body: { currentPassword: password, newPassword: PASSWORD },
  }),
  'POST /v1/auth/deletion': (_, { email }) => ({ body: { email } }),
  'POST /v1/auth/deletion/confirm': async (world, { email }) => ({
    body: { token: await deletionToken(world, email) },
  }),
  'POST /v1/auth/recovery': (_, { email }) => ({ body: { email } }),
  async 'POST /v1/auth/recovery/confirm'({ scene, mailbox }, { email }) {
    await scene.call('POST', '/v1/auth/recovery', { body: { email } });
    // The first mail verifies the address.
    await mailbox.tokenFor(email);
    return { body: { token: await mailbox.tokenFor(email), newPassword: PASSWORD } };
  },
  async 'POST /v1/auth/verification/confirm'({ mailbox }, { email }) {
    return { body: { token: await mailbox.tokenFor(email) } };
  },
  'DELETE /v1/sessions/{id}': (_, { access, sessionId }) => ({ token: access, path: `/v1/sessions/${sessionId}` }),
  'PATCH /v1/users/me': (_, { access }) => ({ token: access, body: { name: 'Renamed' } }),
  'GET /v1/users': (_, { access }) => ({ token: access, path: '/v1/users?page=1&limit=3&q=user' }),
  'GET /v1/users/{id}': (_, { access, id }) => ({ token: access, path: `/v1/users/${id}` }),
  'PATCH /v1/users/{id}': (_, { access, id }) => ({
    token: access,
    path: `/v1/users/${id}`,
    body: { name: 'Renamed', status: null },
  }),
  'POST /v1/admin/limits/peek': (_, { access, email }) => ({ token: access, body: counter(email) }),
  'POST /v1/admin/limits/reset': (_, { access, id }) => ({ token: access, body: counter(id) }),
  'POST /v1/admin/limits/override': (_, { access }) => ({
    token: access,
    body: { policy: 'verification', windows: [{ maxRequests: 10_000, windowMs: 60_000 }] },
  }),
  'POST /v1/admin/limits/restore': (_, { access }) => ({ token: access, body: { policy: 'verification' } }),
  'POST /v1/admin/cache/invalidate': (_, { access }) => ({ token: access, body: { namespaces: ['orders'] } }),
  async 'DELETE /v1/admin/warming/{job}'({ scene }, { access }) {
    await scene.redis.engine('DEL', 'app:lock:{warming:user-lists}');
    return { token: access, path: '/v1/admin/warming/user-lists' };
  },
  ...Object.fromEntries(
    (
      [
        ['DELETE', ''],
        ['GET', '/sessions'],
        ['DELETE', '/sessions'],
        ['GET', '/events'],
        ['DELETE', '/cache'],
        ['POST', '/recovery'],
      ] as const
    ).map(([method, rest]): [string, Make] => [
      `${method} /v1/admin/users/{id}${rest}`,
      async (world, { access }) => ({ token: access, path: `/v1/admin/users/${(await world.newUser()).id}${rest}` }),
    ]),
  ),
  async 'DELETE /v1/admin/users/{id}/sessions/{session}'(world, { access }) {
    const { id, sessionId } = await world.newUser();
    return { token: access, path: `/v1/admin/users/${id}/sessions/${sessionId}` };
  },
  // After the last user's id, so it ends no session: other tests go on with theirs.
  'POST /v1/admin/sessions/end': (_, { access }) => ({ token: access, body: { after: '~' } }),
  async 'POST /v1/admin/warming/{job}'({ scene }, { access }) {
    await scene.redis.engine('DEL', 'app:lock:{warming:user-lists}');
    return { token: access, path: '/v1/admin/warming/user-lists?concurrency=2&restart=true' };
  },
};

async function onlyAdmin({ scene, admin }: World) {
  await scene.app.sql(`update users set role = 'user' where id <> ?`, admin.id);
  return admin;
}

/** What leads to a code that only one operation has, or that comes about in another way there. */
export const OWN: Readonly<Record<string, Make>> = {
  'POST /v1/auth/register 409 EMAIL_TAKEN': (_, { email }) => ({ body: { ...newcomer(), email } }),
  ...Object.fromEntries(
    (['register', 'login'] as const).map((name): [string, Make] => [
      `POST /v1/auth/${name} 401 TOKEN_REVOKED`,
      async ({ scene }, user) => {
        const { email, password } = user;
        const body = name === 'login' ? { email, password } : newcomer();
        const headers = { 'Idempotency-Key': `"${crypto.randomUUID()}"` };
        const { body: tokens } = await scene.call('POST', `/v1/auth/${name}`, { body, headers });
        await scene.call('POST', '/v1/auth/logout', { token: (tokens as { access_token: string }).access_token });
        return { body, headers };
      },
    ]),
  ),
  'POST /v1/auth/login 401 INVALID_CREDENTIALS': (_, { email }) => ({ body: { email, password: 'not this one' } }),
  async 'POST /v1/auth/login 403 ACCOUNT_DISABLED'({ scene }, { id, email, password }) {
    await scene.app.sql(`update users set status = 'disabled' where id = ?`, id);
    return { body: { email, password } };
  },
  'POST /v1/auth/refresh 401 INVALID_TOKEN': () => ({ body: { refresh_token: 'grt1.none' } }),
  'POST /v1/auth/refresh 401 TOKEN_EXPIRED': (world, user) => ({
    body: { refresh_token: world.endedRefreshToken(user) },
  }),
  async 'POST /v1/auth/refresh 401 TOKEN_REVOKED'({ scene }, { access, refresh }) {
    await scene.call('POST', '/v1/auth/logout', { token: access });
    return { body: { refresh_token: refresh } };
  },
  async 'POST /v1/auth/refresh 401 TOKEN_REUSED'({ scene }, { refresh }) {
    let token = refresh;
    for (let generation = 0; generation < 3; generation += 1) {
      const { body } = await scene.call('POST', '/v1/auth/refresh', { body: { refresh_token: token } });
      token = (body as { refresh_token: string }).refresh_token;
    }
    return { body: { refresh_token: refresh } };
  },
  'POST /v1/auth/revoke 400 MALFORMED_REQUEST': () => ({
    body: 'token=a&token=b',
    type: 'application/x-www-form-urlencoded',
  }),
  'POST /v1/auth/password 403 PASSWORD_INCORRECT': (_, { access }) => ({
    token: access,
    body: { currentPassword: 'not this one', newPassword: PASSWORD },
  }),
  'POST /v1/auth/reauthenticate 403 PASSWORD_INCORRECT': (_, { access }) => ({
    token: access,
    body: { password: 'not this one' },
  }),
  'POST /v1/auth/email/confirm 400 ONE_TIME_TOKEN_INVALID': () => ({ body: { token: 'none' } }),
  'POST /v1/auth/email/undo 400 ONE_TIME_TOKEN_INVALID': () => ({ body: { token: 'none' } }),
  'POST /v1/auth/deletion/confirm 400 ONE_TIME_TOKEN_INVALID': () => ({ body: { token: 'none' } }),
  'POST /v1/auth/recovery/confirm 400 ONE_TIME_TOKEN_INVALID': () => ({
    body: { token: 'none', newPassword: PASSWORD },
  }),
  'POST /v1/auth/verification/confirm 400 ONE_TIME_TOKEN_INVALID': () => ({ body: { token: 'none' } }),
  async 'PATCH /v1/users/{id} 409 LAST_ADMINISTRATOR'(world) {
    const { access, id } = await onlyAdmin(world);
    return { token: access, path: `/v1/users/${id}`, body: { role: 'user' } };
  },
  async 'DELETE /v1/admin/users/{id} 409 LAST_ADMINISTRATOR'(world) {
    const { access, id } = await onlyAdmin(world);
    return { token: access, path: `/v1/admin/users/${id}` };
  },
  async 'POST /v1/auth/deletion/confirm 409 LAST_ADMINISTRATOR'(world) {
    const { email } = await onlyAdmin(world);
    await world.scene.call('POST', '/v1/auth/deletion', { body: { email } });
    for (;;) {
      const token = await world.mailbox.tokenFor(email);
      if (token.startsWith('gotd1')) return { body: { token } };
    }
  },
  async 'DELETE /v1/users/me 409 LAST_ADMINISTRATOR'(world) {
    return { token: (await onlyAdmin(world)).access };
  },
  async 'POST /v1/admin/users/{id}/recovery 403 ACCOUNT_DISABLED'(world, { access }) {
    const { id } = await world.newUser();
    await world.scene.app.sql(`update users set status = 'disabled' where id = ?`, id);
    return { token: access, path: `/v1/admin/users/${id}/recovery` };
  },
  async 'DELETE /v1/admin/warming/{job} 202'({ scene }, { access }) {
    const run = { state: 'running', cursor: '', done: 0, failed: 0, total: null, startedAtMs: 1, updatedAtMs: 1 };
    await scene.redis.engine('HSET', 'app:cache:warming:{user-lists}', 'fence', '1', 'value', JSON.stringify(run));
    await scene.redis.engine('SET', 'app:lock:{warming:user-lists}', 'other 1', 'PX', 60_000);
    return { token: access, path: '/v1/admin/warming/user-lists' };
  },
  async 'POST /v1/admin/warming/{job} 409 CONFLICT'({ scene }, { access }) {
    await scene.redis.engine('SET', 'app:lock:{warming:user-lists}', 'other 1', 'PX', 60_000);
    return { token: access, path: '/v1/admin/warming/user-lists' };
  },
  async 'POST /v1/admin/warming/{job} 202'({ scene }, { access }) {
    // More than one slice of accounts that are in use.
    await scene.app.sql(
      `with recursive n(i) as (select 1 union all select i + 1 from n where i < 150)
       insert or ignore into users (id, email, name, password_hash, created_at_ms, updated_at_ms)
       select 'many-' || i, 'many' || i || '@example.com', 'One of many', '', 1, 1 from n`,
    );
    await scene.app.sql(
      `insert or ignore into sessions (id, user_id, device, address, created_at_ms, last_seen_at_ms, expires_at_ms, epoch)
       select id || '.s', id, '', '', 1, ?, ?, 1 from users where id like 'many-%'`,
      Date.now(),
      Date.now() + 3_600_000,
    );
    return { token: access, path: '/v1/admin/warming/active-users' };
  },
};
