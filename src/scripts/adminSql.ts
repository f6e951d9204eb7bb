import { NETWORK_OF_ADDRESS, networkOfAddress } from '../util/networkSql.ts';

/** Outlives every token that a message is about. */
const OUTBOX_LIFE_MS = 31 * 86_400_000;

/** As the Worker stores addresses. */
export function normalizeEmail(email: string): string {
  return email.trim().normalize('NFC').toLowerCase();
}

/** A text literal of hexadecimal digits only: whatever the text holds, no shell or SQL parser can misread it. */
export function sqlText(value: string): string {
  return `CAST(X'${hex(value)}' AS TEXT)`;
}

const hex = (value: string) => Buffer.from(value, 'utf8').toString('hex');

/** Where the databases differ. */
export interface AdminDialect {
  text: (value: string) => string;
  /** A UUID (version 4) for each row of a SELECT. */
  id: string;
  /** JSON as text, of expressions. */
  object: (members: Readonly<Record<string, string>>) => string;
  list: (item: string) => string;
  networkOfAddress: string;
  /** By how much a version goes up: a random number from 1 to 1,000, as `versionStep` of the Worker. */
  versionStep: string;
}

const membersOf = (members: Readonly<Record<string, string>>) =>
  Object.entries(members)
    .map(([name, value]) => `'${name}', ${value}`)
    .join(', ');

export const D1_DIALECT: AdminDialect = {
  text: sqlText,
  id: `lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' ||
     substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))`,
  object: (members) => `json_object(${membersOf(members)})`,
  list: (item) => `json_array(${item})`,
  networkOfAddress: NETWORK_OF_ADDRESS,
  versionStep: '(1 + abs(random() % 1000))',
};

export const POSTGRES_DIALECT: AdminDialect = {
  text: (value) => `convert_from(decode('${hex(value)}', 'hex'), 'UTF8')`,
  id: 'gen_random_uuid()::text',
  object: (members) => `json_build_object(${membersOf(members)})::text`,
  list: (item) => `json_build_array(${item})`,
  networkOfAddress: networkOfAddress('strpos'),
  versionStep: '(1 + floor(random() * 1000))::bigint',
};

/** An action of the command line on one account. */
export type AccountChange = 'grant' | 'revoke' | 'disable' | 'enable' | 'end-sessions';

interface ChangePlan {
  /** The column and its new value; left out where nothing but the sessions changes. */
  set?: { column: 'role' | 'status'; value: string };
  /** The version that goes up. */
  raises?: 'epoch' | 'access_version';
  endsSessionsAs?: 'disabled' | 'administrator';
  /** In the account's history and in the audit. */
  kind: 'role-changed' | 'disabled' | 'enabled' | 'sessions-ended';
}

const PLANS: Readonly<Record<AccountChange, ChangePlan>> = {
  grant: { set: { column: 'role', value: 'admin' }, raises: 'access_version', kind: 'role-changed' },
  revoke: { set: { column: 'role', value: 'user' }, raises: 'access_version', kind: 'role-changed' },
  disable: {
    set: { column: 'status', value: 'disabled' },
    raises: 'epoch',
    endsSessionsAs: 'disabled',
    kind: 'disabled',
  },
  enable: { set: { column: 'status', value: 'active' }, kind: 'enabled' },
  'end-sessions': { raises: 'epoch', endsSessionsAs: 'administrator', kind: 'sessions-ended' },
};

/** Inserts into `outbox` a message for each user that `where` selects. */
const enqueue = (dialect: AdminDialect, message: string, where: string, nowMs: number) =>
  `INSERT INTO outbox (id, message, state, due_at_ms, created_at_ms, expires_at_ms)
   SELECT ${dialect.id}, ${message}, 'pending', ${nowMs}, ${nowMs}, ${nowMs + OUTBOX_LIFE_MS}
   FROM users WHERE ${where}`;

const versions = ({ object }: AdminDialect, raises: NonNullable<ChangePlan['raises']>) =>
  object({
    kind: `'epoch'`,
    userId: 'id',
    epoch: 'epoch',
    accessVersion: 'access_version',
    [raises === 'epoch' ? 'epochRaised' : 'accessVersionRaised']: '1',
  });
const copies = ({ object, list }: AdminDialect) =>
  object({ kind: `'invalidate'`, users: list('id'), namespaces: list(`'users'`) });

const history = ({ id }: AdminDialect, kind: string, where: string, nowMs: number) =>
  `INSERT INTO events (id, user_id, kind, session_id, address, device, at_ms)
   SELECT ${id}, id, '${kind}', NULL, '', '', ${nowMs} FROM users WHERE ${where}`;

const endSessions = (dialect: AdminDialect, reason: string, users: string, nowMs: number) =>
  `UPDATE sessions SET ended_at_ms = ${nowMs}, ended_reason = '${reason}', address = ${dialect.networkOfAddress}
   WHERE user_id IN (${users}) AND ended_at_ms IS NULL`;

/**
 * Changes an account, and in the same transaction writes the message to Redis, the account's history and the audit.
 * Nothing changes when the account is so already.
 *
 * Results: the changed account, then nothing for each further statement, and last the account as it is now with the number
 * of active administrators.
 */
export function accountChangeSql(
  change: AccountChange,
  given: { email: string; nowMs: number },
  dialect = D1_DIALECT,
): string {
  const { set, raises, endsSessionsAs, kind } = PLANS[change];
  const { nowMs } = given;
  const account = `email = ${dialect.text(normalizeEmail(given.email))}`;
  const assigned = [
    ...(set === undefined ? [] : [`${set.column} = '${set.value}'`, `updated_at_ms = ${nowMs}`]),
    ...(raises === undefined ? [] : [`${raises} = ${raises} + ${dialect.versionStep}`]),
  ];
  const differs = set === undefined ? '' : ` AND ${set.column} <> '${set.value}'`;
  // The values that the update has just written mark the account: no other statement runs inside a batch.
  const changed =
    set === undefined ? account : `${account} AND ${set.column} = '${set.value}' AND updated_at_ms = ${nowMs}`;
  const detail = set?.column === 'role' ? dialect.object({ role: 'role' }) : `'{}'`;
  return [
    `UPDATE users SET ${assigned.join(', ')} WHERE ${account}${differs} RETURNING id`,
    ...(raises === undefined ? [] : [enqueue(dialect, versions(dialect, raises), changed, nowMs)]),
    ...(set === undefined ? [] : [enqueue(dialect, copies(dialect), changed, nowMs)]),
    ...(endsSessionsAs === undefined
      ? []
      : [endSessions(dialect, endsSessionsAs, `SELECT id FROM users WHERE ${changed}`, nowMs)]),
    ...(endsSessionsAs === 'disabled'
      ? [
          `DELETE FROM one_time_tokens WHERE purpose IN ('recovery', 'email-change', 'deletion')
           AND user_id IN (SELECT id FROM users WHERE ${changed})`,
        ]
      : []),
    history(dialect, kind, changed, nowMs),
    `INSERT INTO audit (at_ms, by, action, user_id, detail)
     SELECT ${nowMs}, 'command-line', '${kind}', id, ${detail} FROM users WHERE ${changed}`,
    `SELECT email, role, status,
       (SELECT count(*) FROM users WHERE role = 'admin' AND status = 'active') AS admins FROM users WHERE ${account}`,
  ].join(';\n');
}

/** Users of one batch of {@link endEveryoneSql}. */
const LOT = 5_000;

/**
 * Ends the sessions of the next users that have some, as one transaction.
 *
 * @param startedMs when the command began: sessions that begin later are left alone, so it comes to an end
 * Results: the users, then nothing for each further statement.
 */
export function endEveryoneSql(
  { startedMs, nowMs }: { startedMs: number; nowMs: number },
  dialect = D1_DIALECT,
): string {
  const open = `ended_at_ms IS NULL AND expires_at_ms > ${nowMs} AND created_at_ms <= ${startedMs}`;
  const lot = `SELECT DISTINCT user_id FROM sessions WHERE ${open} ORDER BY user_id LIMIT ${LOT}`;
  const those = `id IN (${lot})`;
  return [
    `UPDATE users SET epoch = epoch + ${dialect.versionStep} WHERE ${those} RETURNING id`,
    enqueue(dialect, versions(dialect, 'epoch'), those, nowMs),
    history(dialect, 'sessions-ended', those, nowMs),
    `INSERT INTO audit (at_ms, by, action, detail)
     SELECT ${nowMs}, 'command-line', 'everyone-signed-out', ${dialect.object({ users: 'count(*)' })} FROM users WHERE ${those}
     HAVING count(*) > 0`,
    // Last: the statements before it find their users by these sessions.
    endSessions(dialect, 'administrator', lot, nowMs),
  ].join(';\n');
}

export const LIST_ADMINS_SQL = `SELECT email, name, status FROM users WHERE role = 'admin' ORDER BY email`;
