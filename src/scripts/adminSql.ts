export type Role = 'user' | 'admin';

/** Outlives every token that carries the former role. */
const OUTBOX_LIFE_MS = 31 * 86_400_000;

/** As the Worker stores addresses. */
export function normalizeEmail(email: string): string {
  return email.trim().normalize('NFC').toLowerCase();
}

/** A text literal of hexadecimal digits only: whatever the text holds, no shell or SQL parser can misread it. */
export function sqlText(value: string): string {
  return `CAST(X'${Buffer.from(value, 'utf8').toString('hex')}' AS TEXT)`;
}

export interface RoleChange {
  email: string;
  role: Role;
  nowMs: number;
  /** Of the two outbox rows. */
  ids: readonly [string, string];
}

/**
 * Sets a role, and in the same D1 batch what Redis is to be told: that access tokens of the former role have ended, and
 * that cached copies of the account are stale. Nothing changes when the account has the role already.
 *
 * Results: the changed account, nothing twice, and the account as it is now.
 */
export function roleChangeSql({ email, role, nowMs, ids }: RoleChange): string {
  const account = `email = ${sqlText(normalizeEmail(email))}`;
  // What the update has just written marks the account: in a batch nothing comes in between.
  const changed = `${account} AND role = '${role}' AND updated_at_ms = ${nowMs}`;
  const row = (id: string, message: string) =>
    `INSERT INTO outbox (id, message, state, due_at_ms, created_at_ms, expires_at_ms)
     SELECT ${sqlText(id)}, ${message}, 'pending', ${nowMs}, ${nowMs}, ${nowMs + OUTBOX_LIFE_MS} FROM users WHERE ${changed}`;
  return [
    `UPDATE users SET role = '${role}', access_version = access_version + 1, updated_at_ms = ${nowMs}
     WHERE ${account} AND role <> '${role}' RETURNING id`,
    row(ids[0], `json_object('kind', 'epoch', 'userId', id, 'epoch', epoch, 'accessVersion', access_version)`),
    row(ids[1], `json_object('kind', 'invalidate', 'users', json_array(id), 'namespaces', json_array('users'))`),
    `SELECT email, role, status FROM users WHERE ${account}`,
  ].join(';\n');
}

export const LIST_ADMINS_SQL = `SELECT email, name, status FROM users WHERE role = 'admin' ORDER BY email`;
