import { sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import { users } from '../../db/schema';
import { AppError } from '../../errors';

/**
 * A condition on a user's row: another active administrator remains without this account. It is part of the statement that
 * removes the rights. D1 runs one batch after the other, so two administrators who do this at the same time cannot both
 * succeed.
 */
export const leavesAnAdministrator = (userId: string): SQL =>
  sql`(${users.role} <> 'admin' or ${users.status} <> 'active' or exists (
    select 1 from ${users} as other where other.role = 'admin' and other.status = 'active' and other.id <> ${userId}))`;

export function lastAdministrator(): AppError {
  return new AppError('LAST_ADMINISTRATOR', {
    detail: 'Make another account an administrator first.',
  });
}
