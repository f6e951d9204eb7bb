import { DatabaseUnavailable } from '../../db/client';
import type { SessionRow, UserRow } from '../../db/schema';
import { RedisError } from '../../redis/errors';
import { userOfSession } from '../../redis/keys';
import type { UserVersions } from '../blacklist/denials';
import type { Denial } from '../blacklist/recent';
import type { TokenSubject } from '../token.service';
import type { RefreshGrant } from '../token/refreshToken';
import type { KnownReply, RefreshReply, SessionRecords } from './record';

/** The result of a refresh. `rotated: false`: Redis is away, the presented token stays good. */
export type RefreshOutcome =
  | {
      status: 'ok';
      rotated: boolean;
      grant: RefreshGrant;
      subject: TokenSubject;
      /** `jti` that the access token gets. */
      tokenId: string;
      /** `jti` of an access token that this has ended, because its generation was issued more than once. */
      superseded?: string | undefined;
    }
  | { status: 'revoked' }
  | { status: 'reuse' };

/** A session and its owner as D1 has them. */
export interface SessionTruth {
  session: SessionRow;
  /** `null`: the account was deleted, or the session is the app's own. */
  owner: UserRow | null;
}

/** {@link SessionTruth} with what a Redis that has lost the user must be told. */
export interface FoundSession extends SessionTruth {
  /** Denials of the user's access tokens; `undefined` for an id that is not of the form `<userId>.<random>`. */
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
  /** Redis takes a session for alive that has ended, or that D1 does not know: one of them has gone back in time. */
  correct: (grant: RefreshGrant, truth: SessionTruth | undefined) => void;
  /** Redis takes a token for good that is older than the user's epoch: it does not know that epoch yet, or no more. */
  raise: (owner: UserRow) => void;
  /** Versions that Redis or a token carries are larger than D1's: D1 has gone back in time (it was restored), and is told. */
  catchUp: (userId: string, versions: UserVersions) => Promise<void>;
}

/**
 * What D1 says about a grant. `idle`: alive, but not used for so long that only Redis may know better. `outdated`: the session goes
 * on with newer tokens, such as those that a change of the password gave it.
 */
type Judgement = 'alive' | 'idle' | 'outdated' | 'ended';

/**
 * Decides over a refresh. Redis and D1 are asked side by side. D1 decides whether the session still exists; Redis, which
 * knows every rotation, decides which token is the newest. Where Redis does not know the session, D1 restores it; while
 * Redis is away D1 decides alone, without rotating, so that the family of tokens cannot fork; while D1 is away Redis does.
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

  /** Redis does not know the session: it is told what D1 knows, and asked again, in one trip. */
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
   * D1 is told of every rotation after its response: two behind it means that the one between was used. It was used within the grace
   * at the latest when the session was last seen.
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

  /** @param tokenId `jti` that the access token will have */
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
      // A session that D1 does not know (it was restored from a backup) leaves nothing in Redis either.
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
    // A Redis that has gone back in time does not know of rotations that D1 was told.
    if (reply.status === 'ok' && isReuse(grant, truth.session)) return { status: 'reuse' };
    return outcomeOf(grant, reply, tokenId, truth);
  };
}

/** @param truth D1's word on the role, which is never older than Redis's */
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

/** The access token that a generation was issued with before, where D1 knows of it, and a Redis that has gone back in time does not. */
function issuedBefore(truth: SessionTruth | undefined, generation: number, tokenId: string): string | undefined {
  if (truth?.session.generation !== generation) return undefined;
  const known = truth.session.tokenId;
  return known === null || known === tokenId ? undefined : known;
}

/** When the user of a session last proved the password in it. */
export const authenticatedAt = ({ authenticatedAtMs, createdAtMs }: SessionRow) => authenticatedAtMs ?? createdAtMs;

const subjectOf = ({ id, role, accessVersion }: UserRow): TokenSubject => ({ userId: id, role, accessVersion });
