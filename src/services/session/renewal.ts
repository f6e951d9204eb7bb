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

/** A session that goes on while all others of its user end. */
export interface SessionRenewal {
  /**
   * Returns the session's id unless it ended meanwhile; goes after the statement that raises the epoch.
   *
   * @param when a condition on the owner's row: without it nothing is done
   */
  statement(db: Drizzle, when: SQL): Statement;
  grant(owner: SessionOwner): RefreshGrant;
  /** Tells Redis, once D1 has committed. Never rejects because of Redis. */
  publish(owner: SessionOwner): Promise<Published>;
}

/** A renewal that was committed, and whose response may have been lost. */
export interface PastRenewal {
  grant: RefreshGrant;
  /** Tells Redis, which may not have heard of it. Never rejects because of Redis. */
  publish(): Promise<unknown>;
}

/** How a session goes on under a new epoch of its user. */
export interface SessionRenewals {
  /** For the batch that raises the owner's epoch: this session goes on under the new one. */
  prepareRenewal(found: Pick<FoundSession, 'session' | 'denied'>, shownGeneration: number): SessionRenewal;
  /** The renewal of a session, if it is what has outdated this access token, and nothing else has. */
  renewedSince(found: FoundSession, shown: Pick<AccessClaims, 'epoch' | 'tokenId'>): PastRenewal | undefined;
}

/** More refreshes than there can be of which a renewal does not know: since it read D1, or D1 was last told. */
const RENEWAL_LEAD = 1_000;

export interface RenewalDeps {
  publishSession: (state: SessionState & { owner: SessionOwner }) => Promise<Published>;
  isAlive: (session: SessionRow) => boolean;
  now: () => number;
}

/** A session that goes on while a change of the password ends all others of its user. */
export function createRenewal({ publishSession, isAlive, now }: RenewalDeps): SessionRenewals {
  return {
    prepareRenewal({ session, denied }, shownGeneration) {
      const { id, userId, expiresAtMs } = session;
      // Ahead of anything that Redis may know, so that it is adopted wherever it is shown first.
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
      // A list that may not be whole denies everything.
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
