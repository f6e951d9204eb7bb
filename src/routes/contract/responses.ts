import * as z from 'zod';

/** Bodies of responses, as the contract describes them. Not part of the Worker: only the generator imports them. */

/** `Z` and no fraction. */
const time = z.iso.datetime({ precision: 0 });
const id = z.string();

const USER_ID = '0f1a7a52-6a53-4f0c-9c1e-0f5d1a2b3c4d';
const SESSION_ID = `${USER_ID}.kD0wQb2m3n4o5p6q7r8s9t`;

export const user = z
  .object({
    id,
    email: z.email(),
    emailVerified: z.boolean(),
    name: z.string(),
    role: z.enum(['user', 'admin']),
    status: z.enum(['active', 'disabled']),
    createdAt: time,
    updatedAt: time,
  })
  .meta({
    examples: [
      {
        id: USER_ID,
        email: 'grace@example.com',
        emailVerified: true,
        name: 'Grace Hopper',
        role: 'user',
        status: 'active',
        createdAt: '2026-11-23T09:00:00Z',
        updatedAt: '2026-11-23T09:00:00Z',
      },
    ],
  });

const tokenMembers = {
  access_token: z.string().meta({ description: 'Sent as `Authorization: Bearer`. A JWT (RFC 9068).' }),
  refresh_token: z
    .string()
    .meta({ description: 'Exchanged for the next pair. Store both tokens of a response together.' }),
  token_type: z.string().meta({ description: '`Bearer`' }),
  expires_in: z.int().min(1).meta({ description: 'Life of the access token, in seconds, from when it was issued.' }),
};

const TOKENS = {
  access_token: 'eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6IjEifQ.e30.AAAA',
  refresh_token: 'grt1.1.0f1a7a52.kD0wQb2m.1.1.mf3k2a1b.AAAA',
  token_type: 'Bearer',
  expires_in: 900,
};

export const tokenPair = z.object(tokenMembers).meta({ description: 'RFC 6749, section 5.1.', examples: [TOKENS] });
export const signedIn = z.object({ user, ...tokenMembers });
export const accepted = z.object({ status: z.literal('accepted') }).meta({ examples: [{ status: 'accepted' }] });
/** RFC 7009, section 2.2: clients ignore it. */
export const nothing = z.object({}).meta({ examples: [{}] });

/** Every list has this form. */
const page = {
  page: z.int().min(1),
  limit: z.int().min(0),
  total: z.int().min(0).meta({ description: 'How many there are on all pages.' }),
};

export const session = z
  .object({
    id: z.string().meta({ description: 'For `DELETE /v1/sessions/{id}`.' }),
    device: z.string().meta({ description: 'What the client called itself at sign-in.' }),
    address: z.string().meta({ description: 'The IP address that it signed in from.' }),
    createdAt: time,
    lastSeenAt: time,
    expiresAt: time.meta({ description: 'When it ends at the latest.' }),
    current: z.boolean().meta({ description: 'Whether it is the one that asks.' }),
  })
  .meta({
    examples: [
      {
        id: SESSION_ID,
        device: 'Grace’s phone',
        address: '203.0.113.7',
        createdAt: '2026-11-23T09:00:00Z',
        lastSeenAt: '2026-11-23T09:05:00Z',
        expiresAt: '2026-12-23T09:00:00Z',
        current: true,
      },
    ],
  });
export const sessionList = z.object({ items: z.array(session), ...page });

export const accountEvent = z
  .object({
    id,
    kind: z.string().meta({ description: 'Such as `login`, `login-failed`, `password-changed`; more may be added.' }),
    sessionId: z.string().nullable(),
    address: z.string(),
    device: z.string(),
    at: time,
  })
  .meta({
    examples: [
      {
        id: '7d0a',
        kind: 'login',
        sessionId: SESSION_ID,
        address: '203.0.113.7',
        device: 'Grace’s phone',
        at: '2026-11-23T09:00:00Z',
      },
    ],
  });
export const accountEventList = z.object({ items: z.array(accountEvent), ...page });
export const userList = z.object({ items: z.array(user), ...page });

export const limitState = z.object({
  name: z.string(),
  maxRequests: z.int(),
  windowMs: z.int(),
  remaining: z.int(),
  resetMs: z.number(),
});
export const limitStates = z.object({ limits: z.array(limitState) }).meta({
  examples: [{ limits: [{ name: 'api', maxRequests: 100, windowMs: 900_000, remaining: 99, resetMs: 812_000 }] }],
});

export const warmingJob = z
  .object({
    name: z.string(),
    everySeconds: z
      .int()
      .nullable()
      .meta({ description: 'How often the cron trigger runs it; `null`: on request only.' }),
    state: z
      .string()
      .meta({ description: '`idle` (not run within a day), `running` (there is more to do) or `done`.' }),
    done: z.int().optional().meta({ description: 'Items warmed.' }),
    failed: z.int().optional(),
    total: z.int().nullable().optional(),
    startedAt: time.optional(),
    updatedAt: time.optional(),
  })
  .meta({ examples: [{ name: 'user-lists', everySeconds: 60, state: 'idle' }] });
export const warmingJobs = z.object({ jobs: z.array(warmingJob) });

export const index = z
  .object({ name: z.string(), version: z.string(), documentation: z.string(), contract: z.string() })
  .meta({
    examples: [{ name: 'Gatehouse', version: '0.1.0', documentation: '/docs', contract: '/openapi.json' }],
  });

export const health = z
  .object({
    status: z.literal('ok'),
    redis: z.string().meta({ description: '`unknown` (no response yet), `up` or `down`' }),
    redisAvailable: z.boolean(),
  })
  .meta({ examples: [{ status: 'ok', redis: 'up', redisAvailable: true }] });

const dependency = {
  status: z.string().meta({ description: '`up`, `down` or `degraded`' }),
  detail: z.string().optional(),
};
export const readiness = z
  .object({
    status: z.string().meta({ description: '`ready`, `degraded` (it serves all the same) or `unready`' }),
    dependencies: z.object({
      redis: z.object({ ...dependency, breaker: z.string().meta({ description: '`closed`, `open` or `half-open`' }) }),
      database: z.object(dependency),
    }),
    degradedRequests: z.record(z.string(), z.int()),
  })
  .meta({
    examples: [
      {
        status: 'ready',
        dependencies: { redis: { status: 'up', breaker: 'closed' }, database: { status: 'up' } },
        degradedRequests: {},
      },
    ],
  });

export const jwk = z.object({
  kty: z.string(),
  kid: z.string(),
  alg: z.string(),
  use: z.string(),
  crv: z.string(),
  x: z.string(),
  y: z.string().optional(),
});
export const jwks = z.object({ keys: z.array(jwk) }).meta({
  description: 'RFC 7517.',
  examples: [{ keys: [{ kty: 'OKP', kid: '1', alg: 'EdDSA', use: 'sig', crv: 'Ed25519', x: 'AAAA' }] }],
});
