import type { Config } from '../../config/env';
import { sessions } from '../../db/schema';
import type { SessionRow } from '../../db/schema';
import type { RedisBatch } from '../../redis/batch';
import type { Argument, RedisValue } from '../../redis/client';
import { userOfSession } from '../../redis/keys';
import type { Keys } from '../../redis/keys';
import { blacklistMerge } from '../../redis/scripts/blacklistMerge';
import { sessionEnd } from '../../redis/scripts/sessionEnd';
import { sessionRefresh } from '../../redis/scripts/sessionRefresh';
import { sessionWrite } from '../../redis/scripts/sessionWrite';
import { blacklistTtlMs } from '../blacklist/ttl';
import { supersededUntil } from '../blacklist/denials';
import type { UserVersions } from '../blacklist/denials';
import { denialFields } from '../blacklist/recent';
import type { Denial } from '../blacklist/recent';
import { isCount, isTimeMs, isVersion } from '../replies';
import type { RefreshGrant } from '../token/refreshToken';

/** The part of a user's row that sessions depend on. */
export interface SessionOwner {
  id: string;
  email: string;
  role: 'user' | 'admin';
  epoch: number;
  accessVersion: number;
}

/** The data for a session's record. */
export interface SessionState {
  session: StoredSession;
  owner: OwnerVersions;
  generation: number;
  /** The newest generation whose token the client is known to have received. */
  confirmed: number;
  /** `jti` of the newest access token that a refresh has issued with `generation`, if known. */
  tokenId?: string | null;
  /** Denials of the user's access tokens, for a Redis that has lost them; `undefined` if unknown. */
  denied: readonly Denial[] | undefined;
  /** Whether the data replace existing ones; otherwise they only fill a gap. */
  replace?: boolean;
}

type StoredSession = Pick<SessionRow, 'id' | 'data' | 'epoch' | 'expiresAtMs'>;
type OwnerVersions = Pick<SessionOwner, 'role' | 'epoch' | 'accessVersion'>;

/**
 * Redis's reply to a refresh. `unknown`: D1 must be asked. `stale`: the record's role is older than this access version of
 * the user.
 */
export type RefreshReply = KnownReply | { status: 'stale'; accessVersion: number } | { status: 'unknown' };

export type KnownReply =
  | {
      status: 'ok';
      generation: number;
      epoch: number;
      accessVersion: number;
      role: 'user' | 'admin';
      /** `jti` of an access token that this refresh has ended. */
      superseded: string | undefined;
    }
  | { status: 'revoked' | 'reuse' };

/** Redis's copies of sessions. Every method rejects with a `RedisError`. Commands issued in one turn share a round trip. */
export interface SessionRecords {
  /** Writes the copy, unless Redis has a newer one (see the script). */
  write(state: SessionState): Promise<unknown>;
  /** {@link write}, after the response. */
  writeLater(state: SessionState): void;
  /** @param tokenId `jti` of the access token that will be issued */
  refresh(grant: RefreshGrant, tokenId: string): Promise<RefreshReply>;
  /**
   * The app's data; `null` for a session that has ended, `undefined` if Redis has no current record.
   *
   * @param known the owner's versions in this isolate's memory; a Redis that has gone back in time may have older ones
   */
  data(sessionId: string, known: UserVersions): Promise<string | null | undefined>;
  /** The largest versions of a user in Redis. */
  versions(userId: string): Promise<UserVersions>;
  /** Ends a session after the response, when Redis has lost its end. */
  endLater(end: { sessionId: string; reason: string; expiresAtMs: number }): void;
  /** Delivers the user's versions to Redis after the response. */
  raiseLater(userId: string, versions: UserVersions): void;
  /** Last use (ms) of the sessions that Redis knows. */
  lastSeen(sessionIds: readonly string[]): Promise<Map<string, number>>;
}

export interface SessionRecordDeps {
  batch: RedisBatch;
  keys: Keys;
  config: Config;
  now: () => number;
}

export function createSessionRecords({ batch, keys, config, now }: SessionRecordDeps): SessionRecords {
  const idleMs = config.tokens.refreshIdleSeconds * 1_000;
  const graceMs = config.tokens.refreshGraceSeconds * 1_000;
  const lifeMs = blacklistTtlMs(config);

  const slot = (sessionId: string) => [keys.session(sessionId), keys.blacklist(userOfSession(sessionId))];

  function writeArguments({
    session,
    owner,
    generation,
    confirmed,
    tokenId,
    denied,
    replace = false,
  }: SessionState): [string[], Argument[]] {
    const { id, data, expiresAtMs } = session;
    const { role, epoch, accessVersion } = owner;
    const restMs = Math.max(1, expiresAtMs - now());
    const ttlMs = Math.min(idleMs, restMs);
    const versions = [session.epoch, role, epoch, accessVersion];
    const fields = denied && denialFields(denied);
    const known = [replace ? 1 : 0, fields === undefined ? 0 : 1, tokenId ?? '', ...(fields ?? [])];
    return [slot(id), [id, data, generation, confirmed, ...versions, ttlMs, restMs, lifeMs, ...known]];
  }

  return {
    write: (state) => batch.run(sessionWrite, ...writeArguments(state)),
    writeLater: (state) => void batch.deferRun(sessionWrite, ...writeArguments(state)),

    async refresh({ sessionId, generation, epoch, expiresAtMs }, tokenId) {
      const restMs = Math.max(1, expiresAtMs - now());
      const ttlMs = Math.min(idleMs, restMs);
      const presented = [sessionId, generation, epoch];
      return parseRefresh(
        await batch.run(sessionRefresh, slot(sessionId), [
          ...presented,
          graceMs,
          ttlMs,
          restMs,
          expiresAtMs,
          lifeMs,
          tokenId,
          supersededUntil(config, now()),
        ]),
      );
    },

    async data(sessionId, known) {
      const [key = '', blacklist = ''] = slot(sessionId);
      const [record, denied] = await Promise.all([
        batch.send('HMGET', key, 'd', 'dead', 'ep', 'av'),
        batch.send('HMGET', blacklist, `s:${sessionId}`, 'ep', 'av'),
      ]);
      const [data, dead, epoch, accessVersion] = fieldsOf(record, [isText, isReason, isVersion, isVersion]);
      const [ended, userEpoch, userVersion] = fieldsOf(denied, [isTimeMs, isVersion, isVersion]);
      if (dead != null || ended != null) return null;
      // An older epoch than the user's may come from a lost write of a session that continued. With an older version, the
      // role is outdated.
      const current = epoch != null && userEpoch != null && Number(epoch) >= Math.max(Number(userEpoch), known.epoch);
      const ofToday = Number(accessVersion ?? 0) >= Math.max(Number(userVersion ?? 0), known.accessVersion);
      return typeof data === 'string' && isJson(data) && current && ofToday ? data : undefined;
    },

    async versions(userId) {
      const reply = await batch.send('HMGET', keys.blacklist(userId), 'ep', 'least', 'av');
      const [epoch, least, accessVersion] = Array.isArray(reply) && reply.length === 3 ? reply.map(versionOf) : [];
      return { epoch: Math.max(epoch ?? 0, least ?? 0), accessVersion: accessVersion ?? 0 };
    },

    endLater({ sessionId, reason, expiresAtMs }) {
      const restMs = Math.max(1, expiresAtMs - now());
      void batch.deferRun(sessionEnd, slot(sessionId), [sessionId, reason, restMs, expiresAtMs, lifeMs]);
    },

    raiseLater(userId, { epoch, accessVersion }) {
      void batch.deferRun(blacklistMerge, [keys.blacklist(userId)], [lifeMs, 'least', epoch, 'av', accessVersion]);
    },

    async lastSeen(sessionIds) {
      const seen = new Map<string, number>();
      await Promise.all(
        sessionIds.map(async (id) => {
          const at = await batch.send('HGET', keys.session(id), 'ls');
          if (isTimeMs(at)) seen.set(id, Number(at));
        }),
      );
      return seen;
    },
  };
}

/** A reply that the script cannot give becomes `unknown`. */
function parseRefresh(reply: RedisValue): RefreshReply {
  if (!Array.isArray(reply)) return { status: 'unknown' };
  const [status, generation, epoch, accessVersion, role, superseded] = reply;
  if ((status === 'revoked' || status === 'reuse') && reply.length === 1) return { status };
  if (status === 'stale' && reply.length === 2 && isCount(generation)) return { status, accessVersion: generation };
  if (status !== 'ok' || reply.length > 6 || (role !== 'user' && role !== 'admin')) return { status: 'unknown' };
  if (!isCount(generation) || !isCount(epoch) || !isCount(accessVersion)) return { status: 'unknown' };
  if (reply.length === 6 && !isTokenId(superseded)) return { status: 'unknown' };
  return {
    status,
    generation,
    epoch,
    accessVersion,
    role,
    superseded: reply.length === 6 ? String(superseded) : undefined,
  };
}

const isTokenId = (value: RedisValue | undefined): value is string =>
  typeof value === 'string' && /^[\w-]{1,64}$/.test(value);

/** The fields of an HMGET; all undefined if any of them has a wrong form. */
function fieldsOf(
  reply: RedisValue,
  forms: readonly ((value: RedisValue | undefined) => value is string)[],
): readonly (string | null)[] {
  if (!Array.isArray(reply) || reply.length !== forms.length) return [];
  const fields = reply.flatMap((value, at) => (value === null || forms[at]?.(value) === true ? [value] : []));
  return fields.length === forms.length ? fields : [];
}

const isText = (value: RedisValue | undefined): value is string => typeof value === 'string';

const REASONS: ReadonlySet<RedisValue | undefined> = new Set([
  ...(sessions.endedReason.enumValues ?? []),
  'unrecorded',
]);
const isReason = (value: RedisValue | undefined): value is string => REASONS.has(value);

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** A version in the form that scripts write; any other value counts as none. */
function versionOf(value: RedisValue): number {
  const version = typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value;
  return typeof version === 'number' && Number.isSafeInteger(version) && version > 0 ? version : 0;
}
