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
    file: 'src/services/blacklist.service.ts',
    before: 'facts.sessionEnded || ',
    after: '',
  },
  {
    name: 'D1 is not asked for tokens that were revoked one by one',
    file: 'src/services/blacklist.service.ts',
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
    name: 'second deliveries are an hour late',
    file: 'src/services/outbox.service.ts',
    before: 'const SECOND_DELIVERY_MS = 60_000;',
    after: 'const SECOND_DELIVERY_MS = 3_600_000;',
  },
  {
    name: 'a breaker closes before Redis has been told what it missed',
    file: 'src/services/index.ts',
    before: 'await outbox.deliverPending(batch);',
    after: '',
  },
  {
    name: 'a failed probe closes the breaker',
    file: 'src/services/index.ts',
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
    name: 'a refresh restores a session that has ended',
    file: 'src/services/session/refresh.ts',
    before: ' || !isAlive(row.session)) return',
    after: ') return',
  },
  {
    name: 'a refresh does not look at the epoch of its account',
    file: 'src/services/session/refresh.ts',
    before: 'session.epoch < owner.epoch || epoch < owner.epoch ? undefined',
    after: 'session.epoch < 0 ? undefined',
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
    name: 'a change of a user leaves the lists as they are',
    file: 'src/services/user.service.ts',
    before: 'users: [userId], namespaces: [LISTS] }',
    after: 'users: [userId], namespaces: [] }',
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
    before: 'if (cost === 0 || verdicts.some(',
    after: 'if (cost > 0 || verdicts.some(',
  },
  {
    name: 'a limit admits one request more',
    file: 'src/redis/scripts/rateLimit.ts',
    before: 'fits = c * (W - elapsed) + (b + n) * W <= L * W',
    after: 'fits = c * (W - elapsed) + (b + n) * W <= L * W + W',
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
    file: 'src/db/client.ts',
    before: "withSession('first-primary')",
    after: "withSession('first-unconstrained')",
  },
  {
    name: 'garbage is a decision of the limiter',
    file: 'src/services/rateLimit.service.ts',
    before: 'numbers.length !== 1 + 5 * limits.length || ',
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
    before: '.set({ passwordHash, epoch: sql`${users.epoch} + 1`,',
    after: '.set({ passwordHash,',
  },
];
