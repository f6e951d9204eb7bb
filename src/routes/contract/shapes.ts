import type * as z from 'zod';

import * as schemas from '../schemas';
import * as adminResponses from './adminResponses';
import * as responses from './responses';

/** JSON Schema, as far as the contract uses it. */
export type Json = Record<string, unknown>;

const whole = (maximum: number, fallback: number): Json => ({
  type: 'integer',
  minimum: 1,
  maximum,
  default: fallback,
});

const line = (maxLength: number): Json => ({
  type: 'string',
  minLength: 1,
  maxLength,
  description: 'Without control characters; more than white space, which is trimmed.',
});

const password = (minLength: number): Json => ({
  type: 'string',
  format: 'password',
  minLength,
  maxLength: 256,
  description: 'Any characters, counted as code points in NFC.',
});

/**
 * The accepted input where zod cannot derive it: text that is parsed to a number, lengths that a refinement
 * checks. `test/node/contract/inputs.test.ts` compares both sides.
 */
export const SHAPES = new Map<unknown, Json>([
  [
    schemas.email,
    { type: 'string', format: 'email', maxLength: 254, description: 'White space around it is trimmed.' },
  ],
  [
    schemas.newPassword,
    { ...password(8), description: `${String(password(8)['description'])} Common ones are refused.` },
  ],
  [schemas.anyPassword, password(1)],
  [schemas.name, line(100)],
  [schemas.device, line(100)],
  [schemas.searchText, line(100)],
  [schemas.identity, line(400)],
  [schemas.listSchema.shape.page, whole(100_000, 1)],
  [schemas.listSchema.shape.limit, whole(100, 20)],
  [
    schemas.metricsSchema.shape.since,
    { type: 'integer', minimum: 0, description: 'A Unix time in seconds: steps that end before it are left out.' },
  ],
  [schemas.warmingSchema.shape.concurrency, whole(20, 5)],
  [schemas.warmingSchema.shape.restart, { type: 'boolean', default: false }],
]);

/** Additions to the schemas that zod generates. */
export const ADDED = new Map<unknown, Json>([
  [schemas.profileSchema, { minProperties: 1 }],
  [schemas.userChangeSchema, { minProperties: 1 }],
]);

/** Names of the bodies of requests. A route's own body without a name here gets one from its operation. */
export const INPUTS: Readonly<Record<string, z.ZodType>> = {
  Registration: schemas.registerSchema,
  Credentials: schemas.loginSchema,
  RefreshRequest: schemas.refreshSchema,
  RevocationRequest: schemas.revokeSchema,
  Reauthentication: schemas.reauthenticationSchema,
  PasswordChange: schemas.passwordSchema,
  RecoveryRequest: schemas.recoverySchema,
  PasswordReset: schemas.resetSchema,
  EmailChange: schemas.emailChangeSchema,
  DeletionRequest: schemas.deletionSchema,
  EmailChangeConfirmation: schemas.emailTokenSchema,
  VerificationConfirmation: schemas.verificationSchema,
  ProfileChange: schemas.profileSchema,
  UserChange: schemas.userChangeSchema,
  Counter: schemas.counterSchema,
  LimitOverride: schemas.overrideSchema,
  LimitName: schemas.policyOnlySchema,
  CacheInvalidation: schemas.invalidationSchema,
  EveryoneSignOut: schemas.endEveryoneSchema,
};

/** Names of the bodies of responses, and of their parts. */
export const OUTPUTS: Readonly<Record<string, z.ZodType>> = {
  User: responses.user,
  TokenPair: responses.tokenPair,
  FreshToken: responses.freshToken,
  SignedIn: responses.signedIn,
  Accepted: responses.accepted,
  Nothing: responses.nothing,
  Session: responses.session,
  SessionList: responses.sessionList,
  AccountExport: responses.accountExport,
  AccountEvent: responses.accountEvent,
  AccountEventList: responses.accountEventList,
  UserList: responses.userList,
  LimitState: responses.limitState,
  LimitStates: responses.limitStates,
  MetricSeries: responses.metricSeries,
  MetricsState: responses.metricsState,
  Metrics: responses.metrics,
  WarmingJob: responses.warmingJob,
  WarmingJobs: responses.warmingJobs,
  KnownSession: adminResponses.knownSession,
  KnownSessionList: adminResponses.knownSessionList,
  Invalidation: adminResponses.invalidation,
  EndedSessions: adminResponses.endedSessions,
  Limiter: adminResponses.limiter,
  LimiterList: adminResponses.limiterList,
  Setting: adminResponses.setting,
  SettingList: adminResponses.settingList,
  KeySet: adminResponses.keySet,
  KeySetList: adminResponses.keySetList,
  AuditEntry: adminResponses.auditEntry,
  AuditList: adminResponses.auditList,
  Index: responses.index,
  Health: responses.health,
  Readiness: responses.readiness,
  Jwk: responses.jwk,
  Jwks: responses.jwks,
};
