import type { SessionRow, UserRow } from '../../db/schema';
import { RedisError } from '../../redis/errors';
import { userOfSession } from '../../redis/keys';
import type { TokenSubject } from '../token.service';
import type { RefreshGrant } from '../token/refreshToken';
import type { Denial } from '../blacklist/recent';
import type { RefreshReply, SessionRecords } from './record';

/** What a refresh leads to. `rotated: false`: Redis is away, the presented token stays good. */
export type RefreshOutcome =
  | { status: 'ok'; rotated: boolean; grant: RefreshGrant; subject: TokenSubject }
  | { status: 'revoked' }
  | { status: 'reuse' };

/** A session as D1 has it. */
export interface FoundSession {
  session: SessionRow;
  /** `null`: the account was deleted, or the session is the app's own. */
  owner: UserRow | null;
  /** What denies access tokens of the user; `undefined` for an id that is not of the form `<userId>.<random>`. */
  denied: readonly Denial[] | undefined;
}

export interface RefreshDeps {
  records: SessionRecords;
  /** @throws {DatabaseUnavailable} */
  find: (sessionId: string) => Promise<FoundSession | undefined>;
  isAlive: (session: SessionRow) => boolean;
  degraded: (what: string) => void;
}

/**
 * Decides over a refresh: by Redis alone where it knows; by D1, which then restores Redis, where it does not; and by D1
 * without rotating while Redis is away, so that the family of tokens cannot fork.
 */
export function createRefresh({ records, find, isAlive, degraded }: RefreshDeps) {
  /** The session and its owner, when the grant still counts. */
  async function fromDatabase({ sessionId, epoch }: RefreshGrant) {
    const row = await find(sessionId);
    if (row?.owner == null || row.owner.status !== 'active' || !isAlive(row.session)) return undefined;
    const { session, owner, denied } = row;
    return session.epoch < owner.epoch || epoch < owner.epoch ? undefined : { session, owner, denied };
  }

  /** Redis answers but does not know: it is told what D1 knows, and asked again, in one trip. */
  async function restored(grant: RefreshGrant): Promise<RefreshReply> {
    const found = await fromDatabase(grant);
    if (found === undefined) return { status: 'revoked' };
    const generation = Math.max(grant.generation, found.session.generation);
    const [, reply] = await Promise.all([
      records.write({ ...found, generation, confirmed: grant.generation }),
      records.refresh(grant),
    ]);
    // A server that did not know the first script yet has run the second one before it.
    return reply.status === 'unknown' ? records.refresh(grant) : reply;
  }

  async function withoutRedis(grant: RefreshGrant): Promise<RefreshOutcome> {
    degraded('refresh=d1');
    const found = await fromDatabase(grant);
    if (found === undefined) return { status: 'revoked' };
    const { session, owner } = found;
    // D1 is told of every rotation after its answer: two behind it means that the one between was used.
    if (grant.generation < session.generation - 1) return { status: 'reuse' };
    const subject = { userId: owner.id, role: owner.role, accessVersion: owner.accessVersion };
    return { status: 'ok', rotated: false, grant: { ...grant, epoch: session.epoch }, subject };
  }

  return async function refresh(grant: RefreshGrant): Promise<RefreshOutcome> {
    let reply: RefreshReply;
    try {
      reply = await records.refresh(grant);
      if (reply.status === 'unknown') reply = await restored(grant);
    } catch (error) {
      if (!(error instanceof RedisError)) throw error;
      return withoutRedis(grant);
    }
    if (reply.status === 'unknown') return withoutRedis(grant);
    if (reply.status !== 'ok') return { status: reply.status };
    const { generation, epoch, accessVersion, role } = reply;
    const subject = { userId: userOfSession(grant.sessionId), role, accessVersion };
    return { status: 'ok', rotated: true, grant: { ...grant, generation, epoch }, subject };
  };
}
