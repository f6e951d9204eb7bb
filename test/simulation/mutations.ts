import type { DatabaseKind } from './database.ts';

/** A change to the source that breaks a promise: the simulation must notice. */
export interface Mutation {
  name: string;
  /** From the root of the repository. */
  file: string;
  /** Stands in the file exactly once. */
  before: string;
  after: string;
  /** Where only the build for this database has it. */
  database?: DatabaseKind;
  /** The kept plan (`regressions/`) that notices: it is played first. Left out for one that is new. */
  plan?: string;
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'an isolate does not remember the sessions that it ended',
    file: 'src/services/outbox/message.ts',
    before: 'denials.endSession(sessionId);',
    after: '',
    plan: 'own-end-in-a-restored-redis',
  },
  {
    name: 'an isolate does not remember the versions that it raised',
    file: 'src/services/outbox/message.ts',
    before: 'denials.raise(userId, message);',
    after: '',
    plan: 'own-version-in-a-restored-redis',
  },
  {
    name: 'what D1 said of a session is repeated for a minute',
    file: 'src/services/blacklist/memo.ts',
    before: 'const LIFE_MS = 1_000;',
    after: 'const LIFE_MS = 60_000;',
    plan: 'd1-facts-counted-from-arrival',
  },
  {
    name: 'D1 is not asked whether a session has ended',
    file: 'src/services/blacklist/facts.ts',
    before: ' || facts.sessionEnded',
    after: '',
    plan: 'd1-facts-counted-from-arrival',
  },
  {
    name: 'D1 is not asked for tokens that were revoked one by one',
    file: 'src/services/blacklist/facts.ts',
    before: '(facts.revokedTokens.get(claims.tokenId) ?? verdict)',
    after: 'verdict',
    plan: 'token-revoked-alone-while-redis-is-away',
  },
  {
    name: 'a generation that is issued again leaves the token of before alone',
    file: 'src/redis/scripts/sessionRefresh.ts',
    before: "if not newest or newest == '' or newest == ARGV[9] then return end",
    after: 'if true then return end',
    plan: 'refresh-beside-two-changes',
  },
  {
    name: 'a lost blacklist is restored without its denials',
    file: 'src/services/blacklist.service.ts',
    before: "[blacklistTtlMs(config), ...denied, 'av',",
    after: "[blacklistTtlMs(config), 'av',",
    plan: 'blacklist-is-lost',
  },
  {
    name: 'denials of sessions are read back for ten seconds only',
    file: 'src/services/blacklist/recent.ts',
    before: '(config.tokens.accessTtlSeconds + 60) * 1_000',
    after: '10 * 1_000',
    plan: 'blacklist-is-lost-later',
  },
  {
    name: 'a message to Redis does not reach D1 with its change',
    file: 'src/services/outbox.service.ts',
    before: 'chunks(rows, ROWS_A_STATEMENT).map((chunk) =>',
    after: 'chunks(rows.slice(1), ROWS_A_STATEMENT).map((chunk) =>',
    plan: 'dead-shard-delays-an-end-of-others',
  },
  {
    name: 'a Redis that has gone back in time is not found out',
    file: 'src/services/outbox/history.ts',
    before: 'if (lowest >= expected) return',
    after: 'if (lowest >= -1) return',
    plan: 'redis-of-yesterday',
  },
  {
    name: 'a breaker closes before Redis has been told what it missed',
    file: 'src/services/probe.ts',
    before: 'await outbox.deliverPending();\n    databaseGone',
    after: 'databaseGone',
    plan: 'own-change-waits-for-a-backed-off-probe',
  },
  {
    name: 'a failed probe closes the breaker',
    file: 'src/services/probe.ts',
    before: "breaker.probed(number, databaseGone.sinceMs === undefined ? 'away' : 'unchecked');",
    after: "breaker.probed(number, 'back');",
    plan: 'idle-isolate-counts-alone-when-it-wakes',
  },
  {
    name: 'a breaker stays open for a minute and more',
    file: 'src/redis/breaker.ts',
    before: 'probeAtMs = now() + waitMs() *',
    after: 'probeAtMs = now() + 60 * waitMs() *',
    plan: 'away-read-asks-d1-thrice',
  },
  {
    name: 'any reply counts as a delivery',
    file: 'src/services/outbox/message.ts',
    before: 'if (reply !== expected) throw',
    after: 'if (reply === undefined) throw',
    plan: 'garbage-in-place-of-a-delivery',
  },
  {
    name: 'D1 does not decide whether a session has ended',
    file: 'src/services/session/refresh.ts',
    before: 'session.endedAtMs !== null || ',
    after: '',
    plan: 'probes-fail-while-d1-is-flaky',
  },
  {
    name: 'a refresh does not look at the epoch of its account',
    file: 'src/services/session/refresh.ts',
    before: `    if (session.epoch < owner.epoch) return 'ended';
    if (epoch < owner.epoch) return 'outdated';
`,
    after: '',
    plan: 'retired-refresh-token-while-redis-is-away',
  },
  {
    name: 'a session is written to Redis without the denials of its user',
    file: 'src/redis/scripts/sessionWrite.ts',
    before: "for i = 15, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end",
    after: '',
    plan: 'session-of-a-lost-user-is-restored',
  },
  {
    name: 'a refresh does not look at the epoch of the blacklist',
    file: 'src/redis/scripts/sessionRefresh.ts',
    before: "if denied[1] and tonumber(denied[1]) > tonumber(ARGV[3]) then return {'revoked'} end",
    after: '',
    plan: 'retired-refresh-token-while-d1-is-away',
  },
  {
    name: 'an end is not written to the blacklist',
    file: 'src/redis/scripts/sessionEnd.ts',
    before: "redis.call('HSET', KEYS[2], 's:' .. ARGV[1], ARGV[4])\n",
    after: '\n',
    plan: 'd1-facts-counted-from-arrival',
  },
  {
    name: 'a larger epoch does not reach the blacklist',
    file: 'src/redis/scripts/blacklistMerge.ts',
    before: "redis.call('HSET', KEYS[1], 'ep', epochs[2])",
    after: '',
    plan: 'epoch-lost-by-d1-and-redis',
  },
  {
    name: 'a refresh rotates its token at once: the former one is reuse',
    file: 'src/redis/scripts/sessionRefresh.ts',
    before: 'elseif presented == current - 1 and (confirmed < current or now - confirmedAt <= tonumber(ARGV[4])) then',
    after: 'elseif presented == current and confirmed < 0 then',
    plan: 'lost-response-of-a-refresh',
  },
  {
    name: 'a change of a user is not told to Redis',
    file: 'src/services/user.service.ts',
    before: 'await Promise.all([invalidation.deliver(), versions?.deliver(after, raised)]);',
    after: 'await versions?.deliver(after, raised);',
    plan: 'refresh-beside-two-changes',
  },
  {
    name: 'a message that Redis refuses counts as delivered',
    file: 'src/services/outbox/delivery.ts',
    before:
      "log('error', 'outbox.refused', { id: row.id, ...describeError(error) });\n          outcome.refused.push(row);",
    after: 'outcome.delivered.push(row);',
    plan: 'refused-message-of-a-dead-isolate',
  },
  {
    name: 'an entry is served although it was invalidated',
    file: 'src/services/cache/entry.ts',
    before: 'version === null || version !== written[index]',
    after: 'version === null && written[index] === undefined',
    plan: 'own-message-told-by-a-probe',
  },
  {
    name: 'the isolate counts nothing while Redis is away',
    file: 'src/services/rateLimit/local.ts',
    before: 'this.#charge(counters[index]!, demand, nowMs)',
    after: 'this.#charge(counters[index]!, { ...demand, cost: 0 }, nowMs)',
    plan: 'garbage-is-taken-as-revoked',
  },
  {
    name: 'a limit admits one request more',
    file: 'src/redis/scripts/rateLimit.ts',
    before: "if kind == 's' then over = limit.total + limit.added + n - L",
    after: "if kind == 's' then over = limit.total + limit.added + n - L - 1",
    plan: 'idle-isolate-counts-alone-when-it-wakes',
  },
  {
    name: 'an isolate remembers what Redis said for ten times as long as it may',
    file: 'src/services/memory/remembered.ts',
    before: 'return ageMs >= 0 && ageMs < withinMs;',
    after: 'return ageMs >= 0 && ageMs < 10 * withinMs;',
    plan: 'remembered-for-too-long',
  },
  {
    name: 'an entry that an isolate remembers does not end with its own invalidations',
    file: 'src/services/cache/entryMemory.ts',
    before: 'if (singleFlight.generationOf([key.entryKey, ...key.tagVersionKeys]) > generation) return undefined;',
    after: '',
    plan: 'own-rename-is-remembered',
  },
  {
    name: 'nothing ends a wait for Redis',
    file: 'src/redis/trip.ts',
    before: "reject(new RedisUnavailable('deadline'));",
    after: '',
    plan: 'redis-hangs',
  },
  {
    name: 'nothing ends a wait for D1',
    file: 'src/db/client.ts',
    before: 'within(work(), deadlineMs,',
    after: 'within(work(), 2_147_483_647,',
    plan: 'd1-hangs',
  },
  {
    name: 'reads of D1 may come from a replica that lags',
    file: 'src/db/d1/binding.ts',
    database: 'd1',
    before: "withSession('first-primary')",
    after: "withSession('first-unconstrained')",
    plan: 'replica-lags-behind-a-rename',
  },
  {
    name: 'a counter that Redis has lost admits again',
    file: 'src/services/rateLimit/consume.ts',
    before: 'if (contradicted !== undefined) return contradicted;',
    after: '',
    plan: 'counter-is-lost',
  },
  {
    name: 'disabling an account does not end its sessions',
    file: 'src/services/user.service.ts',
    before: "...(status === 'disabled' && {",
    after: "...(status === 'active' && {",
    plan: 'epoch-lost-by-d1-and-redis',
  },
  {
    name: 'a changed password ends no session',
    file: 'src/services/auth.service.ts',
    before: '.set({ passwordHash, epoch: sql`${greatest(users.epoch, epoch)} + ${versionStep()}`,',
    after: '.set({ passwordHash,',
    plan: 'password-changed-beside-a-refresh',
  },
  {
    name: 'what was delivered behind an undelivered message waits for the run after the next',
    file: 'src/services/outbox.service.ts',
    before: 'if (!lost) await repeatBehind(beat, state.nextSeq, inOrder);',
    after: '',
    plan: 'restored-behind-an-undelivered-message',
  },
  {
    name: 'no heartbeat is raised while a shard is away',
    file: 'src/services/outbox.service.ts',
    before: 'const { lost } = await history.examine(directBatch(), state, beat);',
    after:
      'const { lost: behind, partial } = await history.examine(directBatch(), state, beat); const lost = behind || partial;',
    plan: 'restored-while-a-shard-is-away',
  },
  {
    name: 'an override does not count for requests that meet it at once',
    file: 'src/middlewares/limitRound.ts',
    before: 'const renewed = this.#members.filter((member) => member.renew());',
    after: 'const renewed: RoundMember[] = [];',
    plan: 'override-met-by-parallel-requests',
  },
  {
    name: 'a version of the overrides may come twice',
    file: 'src/services/limitOverride.service.ts',
    before: 'greatest(sql`coalesce(max(version), 0) + 1`, atMs)',
    after: 'sql`coalesce(max(version), 0) + 1`',
    plan: 'override-lost-by-a-restored-d1',
  },
  {
    name: 'a request that asks why Redis has lost units goes by an old window',
    file: 'src/services/rateLimit/consume.ts',
    before: '  const nowMs = now();\n  const verdicts = requests.map',
    after: '  const nowMs = askedAtMs;\n  const verdicts = requests.map',
    plan: 'lost-counter-met-by-parallel-requests',
  },
  {
    name: 'an isolate does not look at the versions that it raised when it reads a session',
    file: 'src/services/session.service.ts',
    before: 'records.data(sessionId, denials.versionsOf(userOfSession(sessionId)))',
    after: 'records.data(sessionId, { epoch: 0, accessVersion: 0 })',
    plan: 'session-read-in-a-restored-redis',
  },
  {
    name: 'a refresh does not look at what D1 knows of its generation',
    file: 'src/services/session/refresh.ts',
    before: 'superseded = issuedBefore(truth, generation, tokenId)',
    after: 'superseded',
    plan: 'refresh-shown-again-in-a-restored-redis',
  },
  {
    name: 'a transaction that PostgreSQL ends because of another one is not tried again',
    file: 'src/db/postgres/transaction.ts',
    database: 'postgres',
    before: '!isConflict(reason) || tried === TRIES',
    after: 'true',
    plan: 'transactions-that-meet',
  },
  {
    name: 'a batch on PostgreSQL is no transaction',
    file: 'src/db/postgres/transaction.ts',
    database: 'postgres',
    before: "'begin isolation level serializable'",
    after: "'rollback'",
    plan: 'adopted-value-whose-fill-is-lost',
  },
];
