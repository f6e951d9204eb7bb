import { and, between, eq, inArray, isNull, sql } from 'drizzle-orm';

import type { Database, Drizzle, Statement } from '../../db/client';
import { nextNumber } from '../../db/portable';
import { outbox, sessions, users } from '../../db/schema';
import type { UserRow } from '../../db/schema';
import type { RedisBatch } from '../../redis/batch';
import { RedisError } from '../../redis/errors';
import type { Keys } from '../../redis/keys';
import type { UserVersions } from '../blacklist/denials';
import { versionStep } from '../blacklist/versionStep';
import { isVersion } from '../replies';
import { whileOwner } from '../session/statements';
import type { createRequestDelivery } from './requestDelivery';
import { newRow, versionsMessage } from './rows';
import type { RowDeps } from './rows';

/** An outbox entry for a change of a user's versions. Only the database knows the new versions, after the change. */
export interface VersionsEntry {
  /** Statements for the batch, after the statement that raises a version, and before one that deletes the user. */
  statements(db: Drizzle): Statement[];
  /** @param raised the versions that the change has raised @default ['epoch'] */
  deliver(versions: UserVersions, raised?: readonly (keyof UserVersions)[]): Promise<VersionsDelivery>;
}

export interface VersionsDelivery {
  pending: boolean;
  /**
   * The user under larger versions, if D1 was restored from a backup and Redis had larger ones. Sessions that the change
   * left alive continue under them; their tokens must carry them.
   */
  overtaken?: UserRow;
}

export interface VersionsDeps extends RowDeps {
  database: Database;
  batch: RedisBatch;
  keys: Keys;
}

/** Messages about a user's versions: a change raises them in the database, and the new versions are delivered to Redis. */
export function createVersions(deps: VersionsDeps, { deliver }: ReturnType<typeof createRequestDelivery>) {
  const { database, batch, keys } = deps;

  function prepare(userId: string): VersionsEntry {
    const row = newRow(deps);
    return {
      statements: (db) => [
        db.insert(outbox).select(
          db
            .select({
              seq: nextNumber(outbox.seq).as('seq'),
              id: sql<string>`${row.id}`.as('id'),
              message: versionsMessage.as('message'),
              state: sql<'pending'>`${row.state}`.as('state'),
              dueAtMs: sql<number>`${row.dueAtMs}`.as('due_at_ms'),
              createdAtMs: sql<number>`${row.createdAtMs}`.as('created_at_ms'),
              expiresAtMs: sql<number>`${row.expiresAtMs}`.as('expires_at_ms'),
            })
            .from(users)
            .where(eq(users.id, userId)),
        ),
      ],
      async deliver({ epoch, accessVersion }, raised = ['epoch']) {
        const versions = { epoch, accessVersion };
        // Read Redis's versions first, in the same pipeline.
        const known = knownVersions(userId);
        const outcome = await deliver([row.id], [{ kind: 'epoch', userId, ...versions }]);
        const before = await known;
        return (before && (await overtake(userId, versions, before, raised))) ?? outcome;
      },
    };
  }

  /** A user's versions in Redis; `undefined` if unknown. */
  async function knownVersions(userId: string): Promise<UserVersions | undefined> {
    try {
      const reply = await batch.send('HMGET', keys.blacklist(userId), 'ep', 'av');
      const [epoch, accessVersion] = Array.isArray(reply) && reply.length === 2 ? reply : [];
      if (!isVersion(epoch) || !isVersion(accessVersion)) return undefined;
      return { epoch: Number(epoch), accessVersion: Number(accessVersion) };
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      return undefined;
    }
  }

  /**
   * Redis has larger versions of a user than those to which a change has just raised D1's: D1 was restored from a backup,
   * and tokens with Redis's versions would survive the change. So D1's versions are raised above Redis's, and with them the
   * sessions that the change left alive or that have begun since, unless another change has raised the versions meanwhile.
   */
  async function overtake(
    userId: string,
    mine: UserVersions,
    known: UserVersions,
    raised: readonly (keyof UserVersions)[],
  ) {
    const needed = neededVersions(mine, known, raised);
    if (needed === undefined) return undefined;
    const next = prepare(userId);
    // Another request may also have found Redis's larger versions, and raised D1's to the same ones.
    const either = (field: keyof UserVersions) => inArray(users[field], [mine[field], known[field]]);
    const made = and(eq(users.epoch, needed.epoch), eq(users.accessVersion, needed.accessVersion))!;
    const continueSessions = (db: Drizzle) =>
      db
        .update(sessions)
        .set({ epoch: needed.epoch })
        .where(
          and(
            eq(sessions.userId, userId),
            isNull(sessions.endedAtMs),
            between(sessions.epoch, mine.epoch, known.epoch),
            whileOwner(userId, made),
          ),
        );
    const [rows] = await database.batch((db) => [
      db
        .update(users)
        .set(needed)
        .where(and(eq(users.id, userId), either('epoch'), either('accessVersion')))
        .returning(),
      // A change without a new epoch ends no session. D1's sessions may then include some that the lost changes ended, so
      // they do not continue.
      ...(raised.includes('epoch') ? [continueSessions(db)] : []),
      ...next.statements(db),
    ]);
    const [overtaken] = rows;
    return overtaken && { overtaken, ...(await next.deliver(overtaken, [])) };
  }

  return { prepare };
}

/**
 * The versions that D1 must have after a change; `undefined` if Redis's are not larger than D1's. Equal versions are this
 * change's own: a probe may deliver its message before the request does, and {@link versionStep} makes two changes differ.
 */
function neededVersions(
  mine: UserVersions,
  known: UserVersions,
  raised: readonly (keyof UserVersions)[],
): UserVersions | undefined {
  const needed = (field: keyof UserVersions) => {
    if (known[field] <= mine[field]) return mine[field];
    return raised.includes(field) ? known[field] + versionStep() : known[field];
  };
  const versions = { epoch: needed('epoch'), accessVersion: needed('accessVersion') };
  return versions.epoch > mine.epoch || versions.accessVersion > mine.accessVersion ? versions : undefined;
}
