import * as z from 'zod';

import { TOO_LARGE, isCountable } from '../config/fields';
import { RANGES } from '../services/metrics.service';
import { identityFault } from '../util/identity';

/** JSON Schema counts code points, and so do we; `length` counts an emoji as two. */
const fits = (text: string, max: number) => text.length <= max || Array.from(text).length <= max;

/** Text without control characters, trimmed, in NFC. */
const line = (max: number) =>
  z
    .string()
    .refine((text) => fits(text, max), { error: `must have at most ${max} characters`, abort: true })
    .trim()
    .min(1)
    .normalize('NFC')
    .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'must not contain control characters')
    // U+2800 is a blank Braille cell.
    .regex(/[^\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/u, 'must contain a visible character');

/** `ada@bücher.example` is `ada@xn--bcher-kva.example` (RFC 5890). A text that is not a domain stays as it is, and is refused later. */
function asciiDomain(address: string): string {
  const at = address.lastIndexOf('@');
  const domain = address.slice(at + 1);
  if (at < 0 || !/[^\p{ASCII}]/u.test(domain) || /[\s/?#@:\\[\]]/.test(domain)) return address;
  const url = `http://${domain}`;
  return URL.canParse(url) ? `${address.slice(0, at)}@${new URL(url).hostname}` : address;
}

export const email = z
  .string()
  .max(254)
  .trim()
  .overwrite(asciiDomain)
  .pipe(z.email({ pattern: z.regexes.html5Email, error: 'must be an e-mail address, in ASCII before the @' }).max(254));

const PASSWORD_MAX = 256;
/** In UTF-16: NFC makes one character of four at the most, each of one or two units. */
const PASSWORD_MAX_UNITS = PASSWORD_MAX * 8;

/**
 * `min` to 256 characters, counted as the code points of its NFC, and passed on unchanged. Nothing is truncated; a
 * longer text is refused before any computation on it.
 */
const password = (min: number) => {
  const error = `must have ${min} to ${PASSWORD_MAX} characters`;
  return z
    .string()
    .max(PASSWORD_MAX_UNITS, { error, abort: true })
    .refine((text) => text.isWellFormed(), { error: 'must not contain lone surrogates', abort: true })
    .refine(
      (text) => {
        const { length } = Array.from(text.normalize('NFC'));
        return length >= min && length <= PASSWORD_MAX;
      },
      { error },
    );
};

/**
 * Length only: composition rules make passwords worse (NIST SP 800-63B, section 3.1.1.2). `PasswordService.check`
 * refuses common passwords.
 */
export const newPassword = password(8);
export const anyPassword = password(1);

/** One instance for each use, because the contract looks schemas up by instance. */
export const name = line(100);
export const device = line(100);
export const searchText = line(100);
export const identity = line(400).refine((text) => identityFault(text) === undefined, 'names no IP address');

/** A member that may be left out, or `null`: many generated clients send `null` for an absent member. */
const optional = <T extends z.ZodType>(schema: T) => schema.nullish().transform((value) => value ?? undefined);

/** The message for a change without a member. */
export const NOTHING_TO_CHANGE = 'names nothing to change';
export const namesSomething = (change: object) => Object.values(change).some((value) => value !== undefined);

export const registerSchema = z.strictObject({
  email,
  password: newPassword,
  name,
  device: optional(device),
});
export const loginSchema = z.strictObject({ email, password: anyPassword, device: optional(device) });
/** As long as an access token may be, so that a client that sends one by mistake gets a 401, as for any invalid token. */
export const refreshSchema = z.strictObject({ refresh_token: z.string().min(1).max(4_096) });
/** Unknown members are ignored (RFC 6749, section 3.1): client libraries send more. */
export const revokeSchema = z.object({
  token: z.string().min(1).max(4_096),
  token_type_hint: optional(z.string().max(64)),
});
export const reauthenticationSchema = z.strictObject({ password: anyPassword });
export const passwordSchema = z.strictObject({ currentPassword: anyPassword, newPassword });

const oneTimeToken = z.string().min(1).max(128);
export const recoverySchema = z.strictObject({ email });
export const resetSchema = z.strictObject({ token: oneTimeToken, newPassword });
export const emailChangeSchema = z.strictObject({ email });
export const deletionSchema = z.strictObject({ email });
export const emailTokenSchema = z.strictObject({ token: oneTimeToken });
export const verificationSchema = z.strictObject({ token: oneTimeToken });

export const profileSchema = z.strictObject({ name: optional(name) }).refine(namesSomething, NOTHING_TO_CHANGE);

export const userChangeSchema = z
  .strictObject({
    name: optional(name),
    role: optional(z.enum(['user', 'admin'])),
    status: optional(z.enum(['active', 'disabled'])),
  })
  .refine(namesSomething, NOTHING_TO_CHANGE);

/** A whole number from 1, as text. */
const count = (fallback: number, max: number) =>
  z
    .string()
    .regex(/^[1-9]\d{0,6}$/, `must be a whole number from 1 to ${max}`)
    .transform(Number)
    .pipe(z.number().max(max, `must be a whole number from 1 to ${max}`))
    .default(fallback);

const id = z.string().max(64);
const optionalText = z
  .string()
  .max(64)
  .nullish()
  .transform((value) => value ?? '');

export const listSchema = z.strictObject({
  page: count(1, 100_000),
  limit: count(20, 100),
  q: searchText.optional(),
});

export const pageSchema = listSchema.omit({ q: true });
export const auditSchema = z.strictObject({
  page: listSchema.shape.page,
  limit: listSchema.shape.limit,
  user: id.optional(),
});
/** `after`: `next` of the call before. */
export const endEveryoneSchema = z.strictObject({ after: optionalText });

export const warmingParam = z.strictObject({ job: z.string().max(64) });
export const warmingSchema = z.strictObject({
  concurrency: count(5, 20),
  restart: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true'),
});

/** `since`: a Unix time in seconds; steps that end before it are left out. */
export const metricsSchema = z.strictObject({
  range: z.enum(RANGES).default('15m'),
  since: z
    .string()
    .regex(/^\d{1,11}$/, 'must be a Unix time in seconds')
    .transform(Number)
    .optional(),
});

export const userParam = z.strictObject({ id });
export const userSessionParam = z.strictObject({ id, session: z.string().max(128) });
export const sessionParam = z.strictObject({ id: z.string().max(128) });

const text = z.string().min(1).max(200);

/** A counter: a limiter's name, and an identity in a form that people know: an e-mail address, an IP address, an id. */
export const counterSchema = z.strictObject({ policy: text, identity });
export const policyOnlySchema = z.strictObject({ policy: text });

const DAY_MS = 86_400_000;
const overrideWindow = z
  .strictObject({
    maxRequests: z.int().min(1).max(1_000_000),
    windowMs: z
      .int()
      .min(1_000)
      .max(30 * DAY_MS),
  })
  .refine(isCountable, TOO_LARGE);
export const overrideSchema = z.strictObject({
  policy: text,
  windows: z
    .array(overrideWindow)
    .min(1)
    .max(5)
    .refine((windows) => new Set(windows.map(({ windowMs }) => windowMs)).size === windows.length, {
      error: 'has two windows of one length',
    }),
});

const names = z
  .array(text)
  .max(100)
  .nullish()
  .transform((value) => value ?? []);
export const invalidationSchema = z
  .strictObject({ namespaces: names, tags: names, users: names })
  .refine(({ namespaces, tags, users }) => namespaces.length + tags.length + users.length > 0, 'names nothing');
