import { useState } from 'hono/jsx/dom';

import { ago, at, shortDevice } from '../format.ts';
import { useLoad } from '../load.ts';
import { go } from '../router.ts';
import { client } from '../session.ts';
import type { KnownSession, User } from '../session.ts';
import { act, confirmed, Content, Empty, Page, Pager, Table, Tag } from '../ui.tsx';

const LIMIT = 20;

/** Why a session ended, in words. */
const REASONS: Readonly<Record<string, string>> = {
  logout: 'signed out',
  'logout-all': 'signed out everywhere',
  revoked: 'ended by its owner',
  administrator: 'ended by an administrator',
  evicted: 'too many sessions',
  reuse: 'an old token was used: possible theft',
  password: 'password changed',
  disabled: 'account disabled',
  deleted: 'account deleted',
};

export function UserPage({ id, me }: { id: string; me: User }) {
  const params = { id };
  const [page, setPage] = useState(1);
  const account = useLoad(`user ${id}`, () => client.call('GET /v1/users/{id}', { params }));
  const sessions = useLoad(
    `sessions ${id} ${page}`,
    () => client.call('GET /v1/admin/users/{id}/sessions', { params, query: { page, limit: LIMIT } }),
    { everyMs: 5_000 },
  );
  const events = useLoad(`events ${id}`, () => client.call('GET /v1/admin/users/{id}/events', { params }));
  const reload = () => {
    for (const one of [account, sessions, events]) one.reload();
  };

  async function endOne({ id: session, device }: KnownSession): Promise<void> {
    const question = {
      title: 'End this session?',
      text: `${shortDevice(device)} is signed out at once.`,
      action: 'End session',
    };
    if (!(await confirmed(question))) return;
    await act(
      () => client.call('DELETE /v1/admin/users/{id}/sessions/{session}', { params: { id, session } }),
      'The session has ended.',
    );
    reload();
  }

  return (
    <Content of={account}>
      {(user) => (
        <Page title={user.name} note={<a href="#/users">All users</a>}>
          <dl class="facts">
            <dt>E-mail address</dt>
            <dd>
              {user.email} {!user.emailVerified && <Tag tone="warning">not verified</Tag>}
            </dd>
            <dt>Status</dt>
            <dd>
              {user.status === 'active' ? <Tag tone="good">active</Tag> : <Tag tone="bad">disabled</Tag>}{' '}
              {user.role === 'admin' && <Tag tone="accent">admin</Tag>}
            </dd>
            <dt>Registered</dt>
            <dd>{at(user.createdAt)}</dd>
            <dt>Id</dt>
            <dd>
              <code>{user.id}</code>
            </dd>
          </dl>
          <Actions user={user} isMe={user.id === me.id} reload={reload} />
          <section>
            <h2>Devices</h2>
            <Content of={sessions}>
              {({ items, total }) =>
                items.length === 0 ? (
                  <Empty>No sessions, and none that ended within their life.</Empty>
                ) : (
                  <>
                    <Table label="Devices" head={['Device', 'Address', 'State', 'Signed in', 'Last seen', '']}>
                      {items.map((session) => (
                        <tr key={session.id}>
                          <td title={session.device}>{shortDevice(session.device)}</td>
                          <td class="quiet">{session.address}</td>
                          <td>{stateOf(session)}</td>
                          <td class="quiet">{at(session.createdAt)}</td>
                          <td class="quiet">{ago(session.lastSeenAt)}</td>
                          <td class="end">
                            {session.state === 'live' && !session.current && (
                              <button type="button" onClick={() => void endOne(session)}>
                                End<span class="hidden"> the session of {session.device}</span>
                              </button>
                            )}
                            {session.current && <span class="quiet">this one</span>}
                          </td>
                        </tr>
                      ))}
                    </Table>
                    {total > LIMIT && <Pager page={page} limit={LIMIT} total={total} onPage={setPage} />}
                  </>
                )
              }
            </Content>
          </section>
          <section>
            <h2>History</h2>
            <Content of={events}>
              {({ items }) =>
                items.length === 0 ? (
                  <Empty>Nothing has happened yet.</Empty>
                ) : (
                  <Table label="History" head={['When', 'What', 'Device', 'Address']}>
                    {items.map(({ id: event, kind, device, address, at: time }) => (
                      <tr key={event}>
                        <td class="quiet">{at(time)}</td>
                        <td>{kind}</td>
                        <td title={device}>{shortDevice(device)}</td>
                        <td class="quiet">{address === '' ? '–' : address}</td>
                      </tr>
                    ))}
                  </Table>
                )
              }
            </Content>
          </section>
        </Page>
      )}
    </Content>
  );
}

function stateOf({ state, endedReason, endedAt }: KnownSession) {
  if (state === 'live') return <Tag tone="good">live</Tag>;
  if (state === 'expired') return <span class="quiet">expired</span>;
  return (
    <span class="quiet" title={endedAt === null ? '' : at(endedAt)}>
      {REASONS[endedReason ?? ''] ?? endedReason ?? 'ended'}
    </span>
  );
}

function Actions({ user, isMe, reload }: { user: User; isMe: boolean; reload: () => void }) {
  const params = { id: user.id };
  const isActive = user.status === 'active';

  /** Confirms where a question is given, does it, and shows the outcome. */
  const run = (work: () => Promise<unknown>, done: string, question?: Parameters<typeof confirmed>[0]) => async () => {
    if (question !== undefined && !(await confirmed(question))) return;
    if (await act(work, done)) reload();
  };
  const change = (body: { status?: 'active' | 'disabled'; role?: 'user' | 'admin' }) => () =>
    client.call('PATCH /v1/users/{id}', { params, body });
  const remove = async () => {
    const question = {
      title: `Delete ${user.name}?`,
      text: 'The account and its personal data are removed for good.',
      action: 'Delete account',
      isDangerous: true,
    };
    if (!(await confirmed(question))) return;
    if (await act(() => client.call('DELETE /v1/admin/users/{id}', { params }), 'The account is deleted.')) go('users');
  };

  const endAll = run(
    () => client.call('DELETE /v1/admin/users/{id}/sessions', { params }),
    'All sessions have ended.',
    {
      title: 'End all sessions?',
      text: isMe ? 'You are signed out here, too.' : 'Every device is signed out at once. The owner may sign in again.',
      action: 'End all sessions',
    },
  );
  const disable = run(change({ status: 'disabled' }), 'The account is disabled.', {
    title: `Disable ${user.name}?`,
    text: 'Every device is signed out at once, and the owner cannot sign in until you enable the account again.',
    action: 'Disable account',
    isDangerous: true,
  });
  const recover = run(
    () => client.call('POST /v1/admin/users/{id}/recovery', { params }),
    'A recovery mail is on its way.',
  );
  const clear = run(() => client.call('DELETE /v1/admin/users/{id}/cache', { params }), 'The cached copies are gone.');
  const isAdmin = user.role === 'admin';
  const setRole = run(change({ role: isAdmin ? 'user' : 'admin' }), 'The role has changed.', {
    title: isAdmin ? 'Take the administrator’s role away?' : `Make ${user.name} an administrator?`,
    text: 'Access tokens with the former role are refused at once; devices refresh and have the new one.',
    action: isAdmin ? 'Take the role away' : 'Make administrator',
  });

  return (
    <div class="actions" role="group" aria-label="What to do with this account">
      <button type="button" onClick={() => void endAll()}>
        End all sessions
      </button>
      <button type="button" disabled={!isActive} onClick={() => void recover()}>
        Send recovery mail
      </button>
      <button type="button" onClick={() => void clear()}>
        Clear cache
      </button>
      <button type="button" onClick={() => void setRole()}>
        {isAdmin ? 'Revoke admin' : 'Make admin'}
      </button>
      {isActive ? (
        <button type="button" onClick={() => void disable()}>
          Disable
        </button>
      ) : (
        <button
          type="button"
          class="primary"
          onClick={() => void run(change({ status: 'active' }), 'The account is enabled.')()}
        >
          Enable
        </button>
      )}
      <button type="button" class="danger" onClick={() => void remove()}>
        Delete
      </button>
    </div>
  );
}
