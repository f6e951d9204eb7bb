import type { Account, SignedIn } from '../faults/scene.ts';
import { newcomer } from './world.ts';
import type { Request, World } from './world.ts';

type Make = (world: World, user: Account & SignedIn) => Request | Promise<Request>;

const PASSWORD = 'a whole new password';
const counter = (identity: string) => ({ policy: 'api', identity });

/**
 * A request of each operation that succeeds once, for a user of its own. An operation that is not here is sent without a
 * body, with the user's token.
 */
export const VALID: Readonly<Record<string, Make>> = {
  'POST /v1/auth/register': () => ({ body: { ...newcomer(), device: null } }),
  'POST /v1/auth/login': (_, { email, password }) => ({ body: { email, password, device: 'Phone' } }),
  'POST /v1/auth/refresh': (_, { refresh }) => ({ body: { refresh_token: refresh } }),
  'POST /v1/auth/revoke': (_, { refresh }) => ({ body: { token: refresh } }),
  'POST /v1/auth/password': (_, { access, password }) => ({
    token: access,
    body: { currentPassword: password, newPassword: PASSWORD },
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
  'POST /v1/admin/limits/peek': (_, { access }) => ({ token: access, body: counter('user:x') }),
  'POST /v1/admin/limits/reset': (_, { access }) => ({ token: access, body: counter('user:x') }),
  'POST /v1/admin/warming/{job}': (_, { access }) => ({
    token: access,
    path: '/v1/admin/warming/user-lists?concurrency=2&restart=true',
  }),
};

/** What leads to a code that only one operation has, or that comes about in another way there. */
export const OWN: Readonly<Record<string, Make>> = {
  'POST /v1/auth/register 409 EMAIL_TAKEN': (_, { email }) => ({ body: { ...newcomer(), email } }),
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
  'POST /v1/auth/recovery/confirm 400 ONE_TIME_TOKEN_INVALID': () => ({
    body: { token: 'none', newPassword: PASSWORD },
  }),
  'POST /v1/auth/verification/confirm 400 ONE_TIME_TOKEN_INVALID': () => ({ body: { token: 'none' } }),
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
