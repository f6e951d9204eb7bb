import { DatabaseUnavailable } from '../../db/client';
import type { SessionRow, UserRow } from '../../db/schema';
import { RedisError } from '../../redis/errors';
import { userOfSession } from '../../redis/keys';
import type { UserVersions } from '../blacklist/denials';
import type { Denial } from '../blacklist/recent';
import type { TokenSubject } from '../token.service';
import type { RefreshGrant } from '../token/refreshToken';
import type { KnownReply, RefreshReply, SessionRecords } from './record';

/** The result of a refresh. `rotated: false`: Redis is away, and the presented token stays valid. */
export type RefreshOutcome =
  | {
      status: 'ok';
      rotated: boolean;
      grant: RefreshGrant;
      subject: TokenSubject;
      /** `jti` of the new access token. */
      tokenId: string;
      /** `jti` of an access token that this refresh has ended, because its generation was issued more than once. */
      superseded?: string | undefined;
    }
  | { status: 'revoked' }
  | { status: 'reuse' };

/** A session and its owner, from D1. */
export interface SessionTruth {
  session: SessionRow;
  /** `null`: the account was deleted, or the session is the app's own. */
  owner: UserRow | null;
}

/** {@link SessionTruth} with the data to restore a user that Redis has lost. */
export interface FoundSession extends SessionTruth {
  /** Denials of the user's access tokens; `undefined` for an id not of the form `<userId>.<random>`. */
  denied: readonly Denial[] | undefined;
}

export interface RefreshDeps {
  records: SessionRecords;
  /** One query. @throws {DatabaseUnavailable} */
  read: (sessionId: string) => Promise<SessionTruth | undefined>;
  /** @throws {DatabaseUnavailable} */
  find: (sessionId: string) => Promise<FoundSession | undefined>;
  idleMs: number;
  graceMs: number;
  now: () => number;
  degraded: (what: string) => void;
  /** Redis considers a session alive that has ended or is unknown in D1: Redis or D1 has gone back in time. */
  correct: (grant: RefreshGrant, truth: SessionTruth | undefined) => void;
  /** Redis has accepted a token that is older than the user's epoch: Redis does not know that epoch yet, or has lost it. */
  raise: (owner: UserRow) => void;
  /** Redis or a token carries larger versions than D1, which was restored from a backup: raises D1's versions. */
  catchUp: (userId: string, versions: UserVersions) => Promise<void>;
}

/**
 * D1's judgement of a grant. `idle`: alive, but unused for so long that only Redis may know of a later use. `outdated`: the
 * session continues with newer tokens, such as those issued by a change of the password.
 */
type Judgement = 'alive' | 'idle' | 'outdated' | 'ended';

/**
 * Decides a refresh. Redis and D1 are asked in parallel. D1 decides whether the session still exists; Redis, which knows
 * every rotation, decides which token is the newest. If Redis does not know the session, it is restored from D1. While
 * Redis is away D1 decides alone, without rotating, so that the family of tokens cannot fork. While D1 is away Redis
 * decides alone.
 */
export function createRefresh(deps: RefreshDeps) {
  const { records, read, find, idleMs, graceMs, now, degraded, correct, raise, catchUp } = deps;

  function judge({ epoch }: RefreshGrant, truth: SessionTruth | undefined): Judgement {
    if (truth?.owner == null || truth.owner.status !== 'active') return 'ended';
    const { session, owner } = truth;
    if (session.endedAtMs !== null || session.expiresAtMs <= now()) return 'ended';
    if (session.epoch < owner.epoch) return 'ended';
    if (epoch < owner.epoch) return 'outdated';
    return session.lastSeenAtMs + idleMs > now() ? 'alive' : 'idle';
  }

  /** Redis does not know the session: writes D1's data to Redis and asks again, in one trip. */
  async function restored(grant: RefreshGrant, tokenId: string): Promise<RefreshReply> {
    const found = await find(grant.sessionId);
    if (found?.owner == null || judge(grant, found) !== 'alive') return { status: 'revoked' };
    const { session, owner, denied } = found;
    const generation = Math.max(grant.generation, session.generation);
    const newest = session.generation === generation ? session.tokenId : null;
    const [, reply] = await Promise.all([
      records.write({ session, owner, denied, generation, confirmed: grant.generation, tokenId: newest }),
      records.refresh(grant, tokenId),
    ]);
    // A server that did not know the first script yet has run the second one before it.
    return reply.status === 'unknown' || reply.status === 'stale' ? records.refresh(grant, tokenId) : reply;
  }

  /**
   * D1 records every rotation after its response. If a token is two generations behind D1's, the one in between was used, at the
   * latest when the session was last seen. Until the grace after that time, the token may still be a retry.
   */
  function isReuse(grant: RefreshGrant, session: SessionRow): boolean {
    const behind = session.generation - grant.generation;
    return behind > 2 || (behind === 2 && now() - session.lastSeenAtMs > graceMs);
  }

  function withoutRedis(grant: RefreshGrant, { session, owner }: SessionTruth, tokenId: string): RefreshOutcome {
    degraded('refresh=d1');
    if (owner === null) return { status: 'revoked' };
    if (isReuse(grant, session)) return { status: 'reuse' };
    const subject = { ...subjectOf(owner), authenticatedAtMs: authenticatedAt(session) };
    return { status: 'ok', rotated: false, grant: { ...grant, epoch: session.epoch }, subject, tokenId };
  }

  async function truthOf({
    sessionId,
  }: RefreshGrant): Promise<{ truth: SessionTruth | undefined } | DatabaseUnavailable> {
    try {
      return { truth: await read(sessionId) };
    } catch (error) {
      if (error instanceof DatabaseUnavailable) return error;
      throw error;
    }
  }

  async function replyOf(grant: RefreshGrant, tokenId: string): Promise<RefreshReply | RedisError> {
    try {
      return await records.refresh(grant, tokenId);
    } catch (error) {
      if (error instanceof RedisError) return error;
      throw error;
    }
  }

  /** @param tokenId `jti` of the new access token */
  return async function refresh(grant: RefreshGrant, tokenId: string): Promise<RefreshOutcome> {
    const [known, asked] = await Promise.all([truthOf(grant), replyOf(grant, tokenId)]);
    if (known instanceof DatabaseUnavailable) {
      if (asked instanceof RedisError || asked.status === 'unknown' || asked.status === 'stale') throw known;
      degraded('refresh=redis');
      return outcomeOf(grant, asked, tokenId);
    }

    const { truth } = known;
    const judgement = judge(grant, truth);
    if (judgement === 'ended' || truth?.owner == null) {
      // If D1 does not know the session (it was restored from a backup), remove it from Redis as well.
      if (!(asked instanceof RedisError) && (asked.status === 'ok' || truth === undefined)) correct(grant, truth);
      return { status: 'revoked' };
    }
    const { owner } = truth;
    if (judgement === 'outdated') {
      if (!(asked instanceof RedisError) && asked.status === 'ok') raise(owner);
      return { status: 'revoked' };
    }
    const seen = {
      epoch: grant.epoch,
      accessVersion: !(asked instanceof RedisError) && asked.status === 'stale' ? asked.accessVersion : 0,
    };
    if (seen.epoch > owner.epoch || seen.accessVersion > owner.accessVersion) await catchUp(owner.id, seen);

    let reply = asked;
    if (!(reply instanceof RedisError) && (reply.status === 'unknown' || reply.status === 'stale')) {
      if (judgement === 'idle') return { status: 'revoked' };
      reply = await restored(grant, tokenId).catch((error: unknown) => {
        if (error instanceof RedisError) return error;
        throw error;
      });
    }
    if (reply instanceof RedisError || reply.status === 'unknown' || reply.status === 'stale') {
      return judgement === 'idle' ? { status: 'revoked' } : withoutRedis(grant, truth, tokenId);
    }
    // A Redis that has gone back in time has lost rotations that D1 has recorded.
    if (reply.status === 'ok' && isReuse(grant, truth.session)) return { status: 'reuse' };
    return outcomeOf(grant, reply, tokenId, truth);
  };
}

/** @param truth D1's data on the role, which are never older than Redis's */
function outcomeOf(grant: RefreshGrant, reply: KnownReply, tokenId: string, truth?: SessionTruth): RefreshOutcome {
  if (reply.status !== 'ok') return { status: reply.status };
  const { generation, epoch, accessVersion, role, superseded = issuedBefore(truth, generation, tokenId) } = reply;
  const owner = truth?.owner ?? undefined;
  const versions =
    owner !== undefined && owner.accessVersion >= accessVersion
      ? subjectOf(owner)
      : { userId: userOfSession(grant.sessionId), role, accessVersion };
  const subject = { ...versions, authenticatedAtMs: truth && authenticatedAt(truth.session) };
  return { status: 'ok', rotated: true, grant: { ...grant, generation, epoch }, subject, tokenId, superseded };
}

/** The access token with which the generation was issued before, if D1 knows it: a Redis that has gone back in time has lost it. */
function issuedBefore(truth: SessionTruth | undefined, generation: number, tokenId: string): string | undefined {
  if (truth?.session.generation !== generation) return undefined;
  const known = truth.session.tokenId;
  return known === null || known === tokenId ? undefined : known;
}

/** When the user of a session last confirmed the password in it. */
export const authenticatedAt = ({ authenticatedAtMs, createdAtMs }: SessionRow) => authenticatedAtMs ?? createdAtMs;

const subjectOf = ({ id, role, accessVersion }: UserRow): TokenSubject => ({ userId: id, role, accessVersion });
