import { and, eq, isNull, sql } from 'drizzle-orm';

import type { Database } from '../../db/client';
import { asNumber, greatest } from '../../db/portable';
import { sessions, users } from '../../db/schema';
import type { UserRow } from '../../db/schema';
import { RedisError } from '../../redis/errors';
import type { UserVersions } from '../blacklist/denials';
import { versionStep } from '../blacklist/versionStep';
import { MOST_AHEAD } from '../outbox/message';
import { isRaiseUndelivered } from '../outbox/rows';
import type { SessionOwner, SessionRecords, SessionState } from './record';

/**
 * The result of publishing a session to Redis. `current`: its tokens may be issued. `ended`: it was ended in the meantime.
 * A row: its tokens must carry the versions of this owner.
 */
export type Published = 'current' | 'ended' | UserRow;

export interface PublishingDeps {
  database: Database;
  records: SessionRecords;
  degraded: (what: string) => void;
}

/** Publishes D1's sessions to Redis. */
export function createPublishing({ database, records, degraded }: PublishingDeps) {
  /** A failure is harmless: a session that is missing in Redis is read from D1. */
  async function publish(calls: Promise<unknown>[]): Promise<void> {
    try {
      await Promise.all(calls);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('session=d1');
    }
  }

  /**
   * If Redis, or a token, carries larger versions of a user, D1 has gone back in time (it was restored from a backup). D1's
   * versions are then raised to these, because tokens with smaller ones are refused. A version that an undelivered change has
   * raised becomes larger than these, because tokens with these must end.
   */
  async function raiseVersions(userId: string, known: UserVersions): Promise<UserRow | undefined> {
    const raised = (field: keyof UserVersions) => sql<number>`case
      when ${users[field]} < ${asNumber(known[field])} and ${isRaiseUndelivered(userId, field)}
        then ${asNumber(known[field] + versionStep())}
      else ${greatest(users[field], known[field])} end`;
    const [owner] = await database.run((db) =>
      db
        .update(users)
        .set({ epoch: raised('epoch'), accessVersion: raised('accessVersion') })
        .where(eq(users.id, userId))
        .returning(),
    );
    return owner;
  }

  /**
   * Writes the record of a session that was begun or renewed in D1.
   *
   * @returns the versions that its tokens must carry, if they differ from those of `state`; `ended` if the session was
   *   ended in the meantime
   */
  async function publishSession(state: SessionState & { owner: SessionOwner }): Promise<Published> {
    let known: UserVersions | undefined;
    try {
      [, known] = await Promise.all([records.write(state), records.versions(state.owner.id)]);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      degraded('session=d1');
    }
    const { owner, session } = state;
    if (known === undefined || (known.epoch <= owner.epoch && known.accessVersion <= owner.accessVersion))
      return 'current';
    // Overtaken by a logout everywhere or a new role, or D1 was restored from a backup.
    if (known.epoch - owner.epoch > MOST_AHEAD || known.accessVersion - owner.accessVersion > MOST_AHEAD)
      return 'current';
    const raised = await raiseVersions(owner.id, known);
    const [renewed] = await database.run((db) =>
      db
        .update(sessions)
        .set({ epoch: sql`(select ${users.epoch} from ${users} where ${users.id} = ${owner.id})` })
        .where(and(eq(sessions.id, session.id), isNull(sessions.endedAtMs)))
        .returning({ id: sessions.id }),
    );
    if (raised === undefined || renewed === undefined) return 'ended';
    await publish([records.write({ ...state, session: { ...session, epoch: raised.epoch }, owner: raised })]);
    return raised;
  }

  return { publish, publishSession, raiseVersions };
}
