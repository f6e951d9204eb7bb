import { inArray, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Database, Drizzle } from '../../db/client';
import { anyOf, asNumber, asText, nextNumber, rowsOf } from '../../db/portable';
import { outbox, sessions, users } from '../../db/schema';
import type { UserRow } from '../../db/schema';
import type { RedisBatch } from '../../redis/batch';
import { RedisError } from '../../redis/errors';
import { chunks } from '../../util/chunks';
import type { UserVersions } from '../blacklist/denials';
import { versionStep } from '../blacklist/versionStep';
import { VERSION_FIELDS, deliverMessage } from './message';
import type { LargerVersions, OutboxMessage, MessageDeps } from './message';
import { PIPELINE, ROWS_A_STATEMENT, markDeliveredById, newRow, versionsMessage } from './rows';

export interface OvertakingDeps extends MessageDeps {
  database: Database;
}

export interface Overtaken {
  /** The users whose versions in D1 are now larger than those that Redis had. */
  owners: ReadonlyMap<string, UserRow>;
  /** By user: why D1's versions could not be delivered to Redis. The message that met larger ones must stay pending. */
  failures: ReadonlyMap<string, RedisError>;
}

type EpochMessage = OutboxMessage & { kind: 'epoch' };

/**
 * Redis has larger versions of a user than those to which a change has raised D1's: D1 was restored from a backup, and
 * tokens with Redis's versions would survive the change. So D1's versions are raised above Redis's, and delivered.
 *
 * Only versions that the change has raised, since a new role must not end sessions. And only if D1's are smaller than
 * Redis's when the statement runs: otherwise Redis has them from a later change.
 */
export function createOvertaking(deps: OvertakingDeps) {
  const { database } = deps;

  /**
   * One query for any number of users; three if D1 must be changed.
   *
   * @throws {DatabaseUnavailable}
   */
  async function overtake(found: readonly LargerVersions[], batchOf: () => RedisBatch): Promise<Overtaken> {
    const larger = mergedByUser(found);
    const read = (db: Drizzle) =>
      db
        .select()
        .from(users)
        .where(inArray(users.id, anyOf([...larger.keys()])));
    let rows = byId(await database.run(read));
    const behind = [...larger.values()].filter((one) => isBehind(one, rows.get(one.userId)));
    // The message outdates the tokens of an account that its change has deleted.
    const deleted = [...larger.values()]
      .filter(({ userId, raised }) => raised.includes('epoch') && !rows.has(userId))
      .map(({ userId, known: { epoch, accessVersion } }): EpochMessage => {
        return { kind: 'epoch', userId, epoch: epoch + versionStep(), accessVersion };
      });

    const row = newRow(deps);
    const idOf = (userId: string) => `${row.id}:${userId}`;
    if (behind.length > 0 || deleted.length > 0) {
      const values = deleted.map((message) => ({ ...row, id: idOf(message.userId), message: JSON.stringify(message) }));
      const results = await database.batch((db) => [
        ...raiseStatements(db, behind),
        db.insert(outbox).select(
          sql`select ${nextNumber(outbox.seq)}, ${asText(idOf(''))} || ${users.id}, ${versionsMessage()}, ${asText(row.state)},
            ${asNumber(row.dueAtMs)}, ${asNumber(row.createdAtMs)}, ${asNumber(row.expiresAtMs)}
            from ${users} where ${users.id} in ${anyOf(behind.map(({ userId }) => userId))}`,
        ),
        ...chunks(values, ROWS_A_STATEMENT).map((some) => db.insert(outbox).values(some)),
        read(db),
      ]);
      rows = byId(results.at(-1) as UserRow[]);
    }

    const owners = [...rows.values()].filter((owner) => {
      const known = larger.get(owner.id)?.known;
      return known !== undefined && VERSION_FIELDS.some((field) => owner[field] > known[field]);
    });
    const messages = owners.map(({ id: userId, epoch, accessVersion }): EpochMessage => {
      return { kind: 'epoch', userId, epoch, accessVersion };
    });
    const failures = await deliver([...messages, ...deleted], batchOf);
    const delivered = [...behind, ...deleted]
      .filter(({ userId }) => !failures.has(userId))
      .map(({ userId }) => idOf(userId));
    if (delivered.length > 0) await database.run((db) => markDeliveredById(db, delivered));
    return { owners: byId(owners), failures };
  }

  async function deliver(
    messages: readonly EpochMessage[],
    batchOf: () => RedisBatch,
  ): Promise<Map<string, RedisError>> {
    const failures = new Map<string, RedisError>();
    for (const some of chunks(messages, PIPELINE)) {
      const batch = batchOf();
      await Promise.all(
        some.map(async (message) => {
          try {
            await deliverMessage(message, batch, deps);
          } catch (error) {
            if (!(error instanceof RedisError)) throw error;
            failures.set(message.userId, error);
          }
        }),
      );
    }
    return failures;
  }

  return overtake;
}

export type Overtake = ReturnType<typeof createOvertaking>;

/** Raises versions of users who are still behind. Their sessions that are alive under D1's epoch continue under the new one. */
function raiseStatements(db: Drizzle, behind: readonly LargerVersions[]) {
  if (behind.length === 0) return [];
  const targets = behind.map(({ userId, known, raised }) => {
    // 0: the version was not raised, so it is never behind.
    const of = (field: keyof UserVersions) => (raised.includes(field) ? known[field] : 0);
    const [epoch, version] = [of('epoch'), of('accessVersion')];
    return {
      id: userId,
      known_epoch: String(epoch),
      next_epoch: String(epoch + versionStep()),
      known_version: String(version),
      next_version: String(version + versionStep()),
    };
  });
  const table = rowsOf('target', ['id', 'known_epoch', 'next_epoch', 'known_version', 'next_version'], targets);
  const numberOf = (column: string) => sql`cast(target.${sql.raw(column)} as bigint)`;
  const epochIsBehind = sql`${users.epoch} < ${numberOf('known_epoch')}`;
  const versionIsBehind = sql`${users.accessVersion} < ${numberOf('known_version')}`;
  const next = (isBehind: SQL, column: string, value: SQL) =>
    sql<number>`case when ${isBehind} then ${numberOf(column)} else ${value} end`;
  return [
    // Before the users' rows change, because the condition tests their former epoch.
    db
      .update(sessions)
      .set({ epoch: sql`${numberOf('next_epoch')}` })
      .from(table)
      .where(
        sql`${sessions.userId} = target.id and ${sessions.endedAtMs} is null and exists (select 1 from ${users}
          where ${users.id} = target.id and ${epochIsBehind} and ${sessions.epoch} >= ${users.epoch})`,
      ),
    db
      .update(users)
      .set({
        epoch: next(epochIsBehind, 'next_epoch', sql`${users.epoch}`),
        accessVersion: next(versionIsBehind, 'next_version', sql`${users.accessVersion}`),
      })
      .from(table)
      .where(sql`${users.id} = target.id and (${epochIsBehind} or ${versionIsBehind})`),
  ];
}

/** One entry a user: the largest versions, and every version that a message has raised. */
function mergedByUser(found: readonly LargerVersions[]): Map<string, LargerVersions> {
  const merged = new Map<string, LargerVersions>();
  for (const { userId, known, raised } of found) {
    const other = merged.get(userId);
    merged.set(userId, {
      userId,
      known: {
        epoch: Math.max(known.epoch, other?.known.epoch ?? 0),
        accessVersion: Math.max(known.accessVersion, other?.known.accessVersion ?? 0),
      },
      raised: [...raised, ...(other?.raised ?? [])],
    });
  }
  return merged;
}

const isBehind = ({ known, raised }: LargerVersions, owner: UserRow | undefined) =>
  owner !== undefined && raised.some((field) => owner[field] < known[field]);

const byId = (rows: readonly UserRow[]) => new Map(rows.map((row) => [row.id, row]));
