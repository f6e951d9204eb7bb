import * as z from 'zod';

import { page, SESSION_ID, session, time, USER_ID } from './responses';

/** Bodies of the responses under `/v1/admin`. */

export const knownSession = session
  .extend({
    state: z.string().meta({ description: '`live`, `ended` or `expired`' }),
    endedAt: time.nullable(),
    endedReason: z.string().nullable().meta({
      description:
        '`logout`, `logout-all`, `revoked`, `evicted`, `reuse`, `password`, `disabled`, `deleted` or `administrator`; `null` for one that did not end before its time.',
    }),
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
        current: false,
        state: 'ended',
        endedAt: '2026-11-23T10:00:00Z',
        endedReason: 'administrator',
      },
    ],
  });
export const knownSessionList = z.object({ items: z.array(knownSession), ...page });

export const invalidation = z
  .object({
    pending: z.boolean().meta({ description: 'Whether Redis does not have the change yet; the cron trigger retries.' }),
  })
  .meta({ examples: [{ pending: false }] });

export const endedSessions = z
  .object({
    users: z.int().meta({ description: 'Users whose sessions this call has ended.' }),
    next: z.string().nullable().meta({ description: '`after` of the next call; `null`: that was the last.' }),
  })
  .meta({ examples: [{ users: 12, next: null }] });

export const auditEntry = z
  .object({
    id: z.string(),
    at: time,
    by: z.string().meta({ description: 'The administrator’s user id, or `command-line`.' }),
    action: z.string().meta({ description: 'Such as `disabled`, `session-ended`, `limit-reset`; more may be added.' }),
    userId: z.string().nullable().meta({ description: 'The account concerned.' }),
    detail: z.record(z.string(), z.string()),
  })
  .meta({
    examples: [
      {
        id: '7',
        at: '2026-11-23T09:00:00Z',
        by: USER_ID,
        action: 'session-ended',
        userId: USER_ID,
        detail: { sessionId: SESSION_ID },
      },
    ],
  });
export const auditList = z.object({ items: z.array(auditEntry), ...page });

const window = z.object({ maxRequests: z.int(), windowMs: z.int() });
const fewMore = [{ maxRequests: 5, windowMs: 900_000 }];

export const limiter = z
  .object({
    policy: z.string().meta({ description: 'The name, as refusals show it; a route, for a limiter without a name.' }),
    counts: z.string().meta({
      description:
        'Whose requests it counts: `caller` (user, else address), `address`, `account`, `address-and-account`, `session`, `session-or-address`, or `own` (the app’s).',
    }),
    algorithm: z.string(),
    windows: z.array(window).meta({ description: 'The numbers that count; empty where they depend on the request.' }),
    ownWindows: z.array(window).meta({ description: 'The app’s own numbers.' }),
    overriddenBy: z.string().nullable().meta({ description: 'The administrator who has set other numbers.' }),
    overriddenAt: time.nullable(),
    places: z.array(z.string()).meta({ description: 'Where it is mounted.' }),
  })
  .meta({
    examples: [
      {
        policy: 'login',
        counts: 'address-and-account',
        algorithm: 'sliding-window',
        windows: fewMore,
        ownWindows: fewMore,
        overriddenBy: null,
        overriddenAt: null,
        places: ['POST /v1/auth/login'],
      },
    ],
  });
export const limiterList = z.object({ limits: z.array(limiter) });

export const setting = z
  .object({
    name: z.string(),
    value: z.string().nullable().meta({ description: '`null`: not set. A secret’s value is `(secret)`.' }),
    isSecret: z.boolean(),
    isDefault: z.boolean(),
  })
  .meta({ examples: [{ name: 'LIMIT_API', value: '100/15m', isSecret: false, isDefault: true }] });
export const settingList = z.object({ settings: z.array(setting) });

const key = z.object({
  kid: z.string(),
  state: z.string().meta({ description: '`next`, `active` or `retired`' }),
  since: time
    .nullable()
    .meta({ description: 'When it entered this state; `null` if the set does not contain the time.' }),
});
export const keySet = z
  .object({
    name: z.string(),
    keys: z.array(key),
    next: z.object({
      step: z.string().meta({ description: 'The next step of a rotation: `publish`, `promote` or `drop`.' }),
      safeAt: time.nullable().meta({ description: 'The earliest safe time; `null`: at any time, or unknown.' }),
    }),
  })
  .meta({
    examples: [
      {
        name: 'SIGNING_KEYS',
        keys: [{ kid: '2026-11', state: 'active', since: '2026-11-23T09:00:00Z' }],
        next: { step: 'publish', safeAt: null },
      },
    ],
  });
export const keySetList = z.object({ sets: z.array(keySet) });
