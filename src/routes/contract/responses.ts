import * as z from 'zod';

/** Bodies of responses, as the contract describes them. Not part of the Worker: only the generator imports them. */

/** `Z` and no fraction. */
export const time = z.iso.datetime({ precision: 0 });
const id = z.string();

export const USER_ID = '0f1a7a52-6a53-4f0c-9c1e-0f5d1a2b3c4d';
export const SESSION_ID = `${USER_ID}.kD0wQb2m3n4o5p6q7r8s9t`;

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
const { refresh_token: _, ...accessOnly } = tokenMembers;
const { refresh_token: __, ...ACCESS_ONLY } = TOKENS;
export const freshToken = z
  .object(accessOnly)
  .meta({ description: 'The refresh token stays as it is.', examples: [ACCESS_ONLY] });
export const signedIn = z.object({ user, ...tokenMembers });
export const accepted = z.object({ status: z.literal('accepted') }).meta({ examples: [{ status: 'accepted' }] });
/** RFC 7009, section 2.2: clients ignore it. */
export const nothing = z.object({}).meta({ examples: [{}] });

/** Every list has this form. */
export const page = {
  page: z.int().min(1),
  limit: z.int().min(0),
  total: z.int().min(0).meta({ description: 'How many there are on all pages.' }),
};

export const session = z
  .object({
    id: z.string().meta({ description: 'For `DELETE /v1/sessions/{id}`.' }),
    device: z.string().meta({ description: 'The name that the client gave at sign-in.' }),
    address: z.string().meta({ description: 'The IP address that it signed in from.' }),
    createdAt: time,
    lastSeenAt: time,
    expiresAt: time.meta({ description: 'When it ends at the latest.' }),
    current: z.boolean().meta({ description: 'Whether it is the session of this request.' }),
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
const maybeTime = time.nullable();
export const accountExport = z
  .object({
    exportedAt: time,
    account: z.object({
      id,
      email: z.string(),
      emailVerifiedAt: maybeTime,
      name: z.string(),
      role: z.string(),
      status: z.string(),
      createdAt: time,
      updatedAt: time,
    }),
    sessions: z.array(
      z.object({
        id: z.string(),
        device: z.string(),
        address: z.string(),
        createdAt: time,
        lastSeenAt: time,
        expiresAt: time,
        endedAt: maybeTime,
        endedReason: z.string().nullable(),
        data: z.string().meta({ description: 'JSON of the app’s own session data.' }),
      }),
    ),
    events: z.array(accountEvent.omit({ id: true })),
    mails: z.array(
      z.object({
        purpose: z.string(),
        email: z.string(),
        formerEmail: z.string().nullable(),
        createdAt: time,
        expiresAt: time,
      }),
    ),
    signInAddresses: z.array(z.object({ lastAt: time, wrongPasswords: z.int().min(0) })),
    administration: z.array(z.object({ action: z.string(), at: time })),
    app: z
      .record(z.string(), z.array(z.unknown()))
      .meta({ description: 'Rows of the app’s own tables, by the name of each.' }),
  })
  .meta({
    examples: [
      {
        exportedAt: '2026-11-23T09:10:00Z',
        account: {
          id: '0f1a7a52-6a53-4c8a-9a52-3f0b6f0f6a11',
          email: 'grace@example.com',
          emailVerifiedAt: null,
          name: 'Grace',
          role: 'user',
          status: 'active',
          createdAt: '2026-11-23T09:00:00Z',
          updatedAt: '2026-11-23T09:00:00Z',
        },
        sessions: [],
        events: [
          { kind: 'registered', sessionId: null, address: '203.0.113.7', device: 'Phone', at: '2026-11-23T09:00:00Z' },
        ],
        mails: [],
        signInAddresses: [{ lastAt: '2026-11-23T09:00:00Z', wrongPasswords: 0 }],
        administration: [],
        app: { orders: [{ id: 'o1', note: 'first' }] },
      },
    ],
  });
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

export const prometheusText = z
  .string()
  .meta({ examples: ['# TYPE gatehouse_isolates gauge\ngatehouse_isolates 3\n'] });
export const metricSeries = z.object({
  name: z.string().meta({ description: 'As OpenTelemetry names it; see docs/metrics.md.' }),
  kind: z.string().meta({ description: '`counter` or `histogram`' }),
  unit: z.string().meta({ description: 'UCUM, such as `s` or `{request}`.' }),
  bounds: z
    .array(z.number())
    .optional()
    .meta({ description: 'Upper bounds of a histogram’s buckets; one more has no bound.' }),
  labels: z.record(z.string(), z.string()),
  points: z.array(z.array(z.number())).meta({
    description:
      'The counts of each step, oldest first: `[step, count]` or, for a histogram, `[step, sum, …counts by bucket]` without zeros at the end. Steps in which nothing was counted are left out.',
  }),
});
export const metricsState = z.object({
  isolate: z.string().meta({ description: 'The one that responds.' }),
  redis: z.string().meta({ description: '`up` or `down`' }),
  breaker: z.string().meta({ description: '`closed`, `open` or `half-open`, in this isolate' }),
  shardsOut: z.int().meta({ description: 'Shards of a cluster that this isolate does without.' }),
  database: z.string().meta({ description: '`up` or `down`' }),
  outbox: z
    .object({
      pending: z.int().meta({ description: 'Messages that Redis has not received; counted up to 10,000.' }),
      oldestAgeSeconds: z.int(),
    })
    .nullable()
    .meta({ description: '`null` while the database is away.' }),
  mailer: z.string().meta({ description: '`none`, `cloudflare` or `console`' }),
  isolates: z
    .int()
    .nullable()
    .meta({ description: 'Isolates that reported within the last minute; `null` while Redis is away.' }),
});
export const metrics = z
  .object({
    range: z.string(),
    source: z.string().meta({
      description:
        '`redis`: all isolates. `isolate`: Redis is away; what this isolate has counted and not yet reported.',
    }),
    stepSeconds: z.int().min(1),
    from: time.meta({ description: 'Beginning of step 0.' }),
    to: time.meta({ description: 'End of the last step, which has not ended yet.' }),
    series: z.array(metricSeries),
    state: metricsState,
  })
  .meta({
    examples: [
      {
        range: '15m',
        source: 'redis',
        stepSeconds: 10,
        from: '2026-11-23T09:00:00Z',
        to: '2026-11-23T09:15:00Z',
        series: [
          {
            name: 'gatehouse.auth.events',
            kind: 'counter',
            unit: '{event}',
            labels: { 'gatehouse.kind': 'login' },
            points: [
              [0, 3],
              [89, 1],
            ],
          },
        ],
        state: {
          isolate: '0f1a7a52-6a53',
          redis: 'up',
          breaker: 'closed',
          shardsOut: 0,
          database: 'up',
          outbox: { pending: 0, oldestAgeSeconds: 0 },
          mailer: 'cloudflare',
          isolates: 12,
        },
      },
    ],
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
      .meta({ description: '`idle` (not run within a day), `running` (there is more to do), `done` or `stopped`.' }),
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
    examples: [{ name: 'Gatehouse', version: '1.0.0', documentation: '/docs', contract: '/openapi.json' }],
  });

export const health = z
  .object({
    status: z.literal('ok'),
    redis: z.string().meta({
      description:
        'The state that the responding isolate knows: `unknown` (no response yet), `up`, `degraded` (some shards cannot serve) or `down`.',
    }),
    redisAvailable: z
      .boolean()
      .meta({ description: 'Whether the isolate calls Redis: its circuit breaker is closed.' }),
    redisShardsOut: z
      .int()
      .meta({ description: 'Shards of a cluster that the isolate does not call, because they failed.' }),
  })
  .meta({ examples: [{ status: 'ok', redis: 'up', redisAvailable: true, redisShardsOut: 0 }] });

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
