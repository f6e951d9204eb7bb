/** A change to the source that breaks a promise: the simulation must notice. */
export interface Mutation {
  name: string;
  /** From the root of the repository. */
  file: string;
  /** Stands in the file exactly once. */
  before: string;
  after: string;
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: 'an isolate does not remember the sessions that it ended',
    file: 'src/services/outbox/message.ts',
    before: 'denials.endSession(sessionId);',
    after: '',
  },
  {
    name: 'an isolate does not remember the versions that it raised',
    file: 'src/services/outbox/message.ts',
    before: 'denials.raise(userId, message);',
    after: '',
  },
  {
    name: 'what D1 said of a session is repeated for a minute',
    file: 'src/services/blacklist/memo.ts',
    before: 'const LIFE_MS = 1_000;',
    after: 'const LIFE_MS = 60_000;',
  },
  {
    name: 'D1 is not asked whether a session has ended',
    file: 'src/services/blacklist/facts.ts',
    before: 'facts.sessionEnded || ',
    after: '',
  },
  {
    name: 'D1 is not asked for tokens that were revoked one by one',
    file: 'src/services/blacklist/facts.ts',
    before: ' || facts.revokedTokens.has(claims.tokenId)',
    after: '',
  },
  {
    name: 'a lost blacklist is restored without its denials',
    file: 'src/services/blacklist.service.ts',
    before: "[blacklistTtlMs(config), ...denied, 'av',",
    after: "[blacklistTtlMs(config), 'av',",
  },
  {
    name: 'denials of sessions are read back for ten seconds only',
    file: 'src/services/blacklist/recent.ts',
    before: '(config.tokens.accessTtlSeconds + 60) * 1_000',
    after: '10 * 1_000',
  },
  {
    name: 'a message to Redis does not reach D1 with its change',
    file: 'src/services/outbox.service.ts',
    before: 'chunks(rows, ROWS_A_STATEMENT).map((chunk) =>',
    after: 'chunks(rows.slice(1), ROWS_A_STATEMENT).map((chunk) =>',
  },
  {
    name: 'a Redis that has gone back in time is not found out',
    file: 'src/services/outbox/history.ts',
    before: 'if (lowest >= expected) return',
    after: 'if (lowest >= -1) return',
  },
  {
    name: 'a breaker closes before Redis has been told what it missed',
    file: 'src/services/probe.ts',
    before: 'await outbox.deliverPending();\n    databaseGone',
    after: 'databaseGone',
  },
  {
    name: 'a failed probe closes the breaker',
    file: 'src/services/probe.ts',
    before: 'breaker.probed(number, false);',
    after: 'breaker.probed(number, true);',
  },
  {
    name: 'any reply counts as a delivery',
    file: 'src/services/outbox/message.ts',
    before: 'if (reply !== expected) throw',
    after: 'if (reply === undefined) throw',
  },
  {
    name: 'D1 does not decide whether a session has ended',
    file: 'src/services/session/refresh.ts',
    before: 'session.endedAtMs !== null || ',
    after: '',
  },
  {
    name: 'a refresh does not look at the epoch of its account',
    file: 'src/services/session/refresh.ts',
    before: 'if (session.epoch < owner.epoch || epoch < owner.epoch) return',
    after: 'if (session.epoch < 0) return',
  },
  {
    name: 'a session is written to Redis although its blacklist denies it',
    file: 'src/redis/scripts/sessionWrite.ts',
    before: 'if state[3] or epoch > tonumber(ARGV[5]) then return 0 end',
    after: '',
  },
  {
    name: 'a refresh does not look at the blacklist',
    file: 'src/redis/scripts/sessionRefresh.ts',
    before: "if denied[3] or record[7] then return {'revoked'} end",
    after: '',
  },
  {
    name: 'an end is not written to the blacklist',
    file: 'src/redis/scripts/sessionEnd.ts',
    before: "redis.call('HSET', KEYS[2], 's:' .. ARGV[1], ARGV[4])\n",
    after: '\n',
  },
  {
    name: 'a larger epoch does not reach the blacklist',
    file: 'src/redis/scripts/blacklistMerge.ts',
    before: "redis.call('HSET', KEYS[1], 'ep', epochs[2])",
    after: '',
  },
  {
    name: 'a refresh rotates its token at once: the former one is reuse',
    file: 'src/redis/scripts/sessionRefresh.ts',
    before: 'elseif presented == current - 1 and (confirmed < current or now - confirmedAt <= tonumber(ARGV[4])) then',
    after: 'elseif presented == current and confirmed < 0 then',
  },
  {
    name: 'a change of a user is not told to Redis',
    file: 'src/services/user.service.ts',
    before: 'await Promise.all([invalidation.deliver(), versions?.deliver(after)]);',
    after: 'await versions?.deliver(after);',
  },
  {
    name: 'a message that could not be delivered counts as delivered',
    file: 'src/services/outbox/delivery.ts',
    before: 'outcome.unreachable.push(row);',
    after: 'outcome.delivered.push(row);',
  },
  {
    name: 'an entry is served although it was invalidated',
    file: 'src/services/cache/entry.ts',
    before: 'nonce === null || nonce !== written[index]',
    after: 'nonce === null && written[index] === undefined',
  },
  {
    name: 'the isolate counts nothing while Redis is away',
    file: 'src/services/rateLimit/local.ts',
    before: 'this.#charge(counters[index]!, demand, nowMs)',
    after: 'this.#charge(counters[index]!, { ...demand, cost: 0 }, nowMs)',
  },
  {
    name: 'a limit admits one request more',
    file: 'src/redis/scripts/rateLimit.ts',
    before: "if kind == 's' then over = limit.total + limit.added + n - L",
    after: "if kind == 's' then over = limit.total + limit.added + n - L - 1",
  },
  {
    name: 'nothing ends a wait for Redis',
    file: 'src/redis/trip.ts',
    before: 'return await Promise.race([outcome, deadline]);',
    after: 'return await outcome;',
  },
  {
    name: 'nothing ends a wait for D1',
    file: 'src/db/client.ts',
    before: 'Promise.race([work(connect()), deadline])',
    after: 'work(connect())',
  },
  {
    name: 'reads of D1 may come from a replica that lags',
    file: 'src/db/binding.ts',
    before: "withSession('first-primary')",
    after: "withSession('first-unconstrained')",
  },
  {
    name: 'a counter that Redis has lost admits again',
    file: 'src/services/rateLimit/consume.ts',
    before: 'if (contradicted !== undefined) return contradicted;',
    after: '',
  },
  {
    name: 'disabling an account does not end its sessions',
    file: 'src/services/user.service.ts',
    before: "and ${status} = 'disabled')`",
    after: "and ${status} = 'active')`",
  },
  {
    name: 'a changed password ends no session',
    file: 'src/services/auth.service.ts',
    before: '.set({ passwordHash, epoch: sql`max(${users.epoch}, ${epoch}) + 1`,',
    after: '.set({ passwordHash,',
  },
];
