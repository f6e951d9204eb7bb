import { and, eq, isNull, sql } from 'drizzle-orm';
import type { SQL } from 'drizzle-orm';

import type { Statement, Drizzle } from '../../db/client';
import { sessions, users } from '../../db/schema';
import type { SessionRow } from '../../db/schema';
import { denialFields } from '../blacklist/recent';
import type { AccessClaims } from '../token/accessToken';
import type { RefreshGrant } from '../token/refreshToken';
import type { Published } from './publishing';
import type { SessionOwner, SessionState } from './record';
import type { FoundSession } from './refresh';
import { whileOwner } from './statements';

/** A session that continues while all other sessions of its user end. */
export interface SessionRenewal {
  /**
   * Returns the session's id unless the session has ended in the meantime. Must follow the statement that raises the epoch.
   *
   * @param when a condition on the owner's row: if it is false, the statement does nothing
   */
  statement(db: Drizzle, when: SQL): Statement;
  grant(owner: SessionOwner): RefreshGrant;
  /** Publishes the renewal to Redis, once D1 has committed. Never rejects because of Redis. */
  publish(owner: SessionOwner): Promise<Published>;
}

/** A renewal that was committed, but whose response may have been lost. */
export interface PastRenewal {
  grant: RefreshGrant;
  /** Publishes the renewal to Redis, which may not know it. Never rejects because of Redis. */
  publish(): Promise<unknown>;
}

/** Continues a session under a new epoch of its user. */
export interface SessionRenewals {
  /** For the batch that raises the owner's epoch: continues this session under the new one. */
  prepareRenewal(found: Pick<FoundSession, 'session' | 'denied'>, shownGeneration: number): SessionRenewal;
  /** The renewal of a session, if only this renewal has outdated the access token. */
  renewedSince(found: FoundSession, shown: Pick<AccessClaims, 'epoch' | 'tokenId'>): PastRenewal | undefined;
}

/** More refreshes than a renewal can miss: those since it read D1, or since D1's last record. */
const RENEWAL_LEAD = 1_000;

export interface RenewalDeps {
  publishSession: (state: SessionState & { owner: SessionOwner }) => Promise<Published>;
  isAlive: (session: SessionRow) => boolean;
  now: () => number;
}

/** Continues a session while a change of the password ends all other sessions of its user. */
export function createRenewal({ publishSession, isAlive, now }: RenewalDeps): SessionRenewals {
  return {
    prepareRenewal({ session, denied }, shownGeneration) {
      const { id, userId, expiresAtMs } = session;
      // Ahead of any generation that Redis may know, so that Redis adopts it.
      const generation = Math.max(session.generation, shownGeneration) + RENEWAL_LEAD;
      return {
        statement: (db, when) =>
          db
            .update(sessions)
            .set({
              epoch: sql`(select ${users.epoch} from ${users} where ${users.id} = ${userId})`,
              generation,
              tokenId: null,
              authenticatedAtMs: now(),
              passwordFailures: 0,
            })
            .where(and(eq(sessions.id, id), isNull(sessions.endedAtMs), whileOwner(userId, when)))
            .returning({ id: sessions.id }),
        grant: ({ epoch }) => ({ sessionId: id, generation, epoch, expiresAtMs }),
        publish: (owner) => {
          const renewed = { ...session, epoch: owner.epoch };
          return publishSession({ session: renewed, owner, generation, confirmed: generation - 1, denied });
        },
      };
    },

    renewedSince({ session, owner, denied }, { epoch, tokenId }) {
      if (owner === null || owner.status !== 'active' || !isAlive(session)) return undefined;
      if (epoch >= session.epoch || session.epoch < owner.epoch) return undefined;
      // A list that may be incomplete must count as denying every token.
      if (denied === undefined || denialFields(denied) === undefined) return undefined;
      if (denied.some(({ field }) => field === `j:${tokenId}`)) return undefined;
      const { id: sessionId, generation, expiresAtMs } = session;
      return {
        grant: { sessionId, generation, epoch: session.epoch, expiresAtMs },
        publish: () => publishSession({ session, owner, generation, confirmed: generation - 1, denied }),
      };
    },
  };
}
