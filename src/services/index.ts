import { personalTables } from '../personalData';
import { createApart } from './apart';
import { createAuditService } from './audit.service';
import { createAuthService } from './auth.service';
import { extraBatch, probeBatch } from './batches';
import { createBlacklistService } from './blacklist.service';
import { createCacheService } from './cache.service';
import { currentRequest } from './current';
import { createEmailChangeService } from './emailChange.service';
import { createEventService } from './event.service';
import { createGuardMemoryService } from './guardMemory.service';
import { createHealthService } from './health.service';
import { createIdempotencyService } from './idempotency.service';
import type { Isolate } from './isolate';
import { createLastSeenService } from './lastSeen.service';
import { createLimitOverrideService } from './limitOverride.service';
import { createLockService } from './lock.service';
import { createLoginAttempts } from './login/attempts';
import { createMailService } from './mail.service';
import { createMetricsService } from './metrics.service';
import { createOutboxService } from './outbox.service';
import { createRateLimitService } from './rateLimit.service';
import { createAccountDeletionService } from './accountDeletion.service';
import { createRecoveryService } from './recovery.service';
import { createRedisService } from './redis.service';
import { probeIfDue } from './redisWatch';
import { currentScope } from './scope';
import type { ServiceMap } from './scope';
import { createSessionService } from './session.service';
import { createTokenService } from './token.service';
import { createUserService } from './user.service';
import { createVerificationService } from './verification.service';
import { createWarmingService } from './warming.service';

/** How long a walk through the key space may wait for Redis in total. */
const WALK_MS = 25_000;

/**
 * The composition root: makes every service once per isolate, in the order of dependencies. Services find the state of a
 * request through `currentRequest`.
 */
export function createServices(isolate: Isolate): ServiceMap {
  const { config, keys, breaker, shards, denials, lookups, memory, passwords, singleFlight } = isolate;
  const { authDeadlineMs, callTimeoutMs } = config.redis;
  const { instruments, outbound, memo: metricsMemo } = isolate.metrics;
  const { accounts, reads, manualFills, refreshWithinMs } = currentRequest;

  const batchWithin = (deadlineMs: number) => extraBatch(isolate, currentScope(), deadlineMs);
  const freshBatch = () => batchWithin(callTimeoutMs);
  const slowBatch = () => batchWithin(WALK_MS);
  const common = { ...currentRequest, keys, config, denials, freshBatch, slowBatch, batchWithin, instruments };
  const forgetReads = (redisKeys?: readonly string[]) => {
    currentRequest.forgetReads(redisKeys);
    singleFlight.separate(redisKeys);
  };
  const apart = createApart(isolate);

  // Services on Redis alone.
  const redis = createRedisService(common);
  const limiting = { ...common, ...memory, local: isolate.localLimiter, blocked: isolate.blocked };
  const rateLimit = createRateLimitService(limiting);
  const guardMemory = createGuardMemoryService({ ...limiting, memory });
  const lastSeen = createLastSeenService({ ...common, lastSeenMemo: isolate.lastSeenMemo });
  const lock = createLockService({ ...common, deadlineMs: authDeadlineMs });
  const warming = createWarmingService({ ...common, lock, apart });

  // Services that write with a change in D1.
  const event = createEventService(common);
  const audit = createAuditService(common);
  const idempotency = createIdempotencyService({
    ...common,
    secrets: isolate.idempotencySecrets,
    current: currentRequest.keyedExecution,
  });
  const outbox = createOutboxService({
    ...common,
    breaker,
    shards,
    forgetReads,
    directBatch: () => probeBatch(isolate, currentScope()),
    probe: () => probeIfDue(isolate, currentScope()),
  });
  const limitOverride = createLimitOverrideService({ ...common, audit, idempotency, overrides: isolate.overrides });

  const blacklist = createBlacklistService({
    ...common,
    ...memory,
    outbox,
    memo: isolate.revocationMemo,
    lookups,
    accounts,
  });
  const cache = createCacheService({
    ...common,
    settings: config.cache,
    singleFlight,
    freshLoads: isolate.freshLoads,
    memory: isolate.cacheMemory,
    entries: memory.entries,
    refresher: memory.refresher,
    lookups,
    outbox,
    idempotency,
    locks: lock,
    background: (work) => apart({}, ({ batch }) => work(batch)),
    nextOrder: () => accounts().nextOrder(),
    refreshWithinMs,
    reads,
    manualFills,
    forgetReads,
  });

  // Accounts.
  const mail = createMailService({ ...common, mailer: isolate.mailer });
  const token = createTokenService({
    access: isolate.access,
    refresh: isolate.refresh,
    accessTtlSeconds: config.tokens.accessTtlSeconds,
    now: common.now,
  });
  const recording = { ...common, outbox, event, audit, idempotency };
  const session = createSessionService(recording);
  const user = createUserService({
    ...recording,
    cache,
    settings: config.cache,
    personal: personalTables,
    unverifiedTtlSeconds: config.mail.unverifiedTtlSeconds,
    accounts,
  });
  const attempts = createLoginAttempts(common);
  const proving = { ...recording, passwords, attempts };
  const auth = createAuthService({ ...proving, session, token, blacklist });
  const recovery = createRecoveryService({ ...proving, mail });
  const emailChange = createEmailChangeService({ ...proving, mail });
  const accountDeletion = createAccountDeletionService({ ...common, mail, event, user });
  const verification = createVerificationService({ ...recording, mail });

  // Services for operators.
  const metrics = createMetricsService({ ...common, outbound, memo: metricsMemo, breaker, shards });
  const { degradations, readiness } = isolate;
  const health = createHealthService({ ...common, breaker, shards, degradations, memo: readiness });

  return {
    redis,
    cache,
    rateLimit,
    guardMemory,
    blacklist,
    token,
    outbox,
    event,
    audit,
    limitOverride,
    lastSeen,
    lock,
    idempotency,
    session,
    user,
    auth,
    password: passwords,
    mail,
    recovery,
    verification,
    emailChange,
    accountDeletion,
    warming,
    health,
    metrics,
  };
}
