import * as z from 'zod';

import { POLICY_NAMES } from '../middlewares/policy';
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
    .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'must not contain control characters');

export const email = z
  .string()
  .max(254)
  .trim()
  .pipe(z.email({ pattern: z.regexes.html5Email }));

const PASSWORD_MAX = 256;
/** In UTF-16: NFC makes one character of four at the most, each of one or two units. */
const PASSWORD_MAX_UNITS = PASSWORD_MAX * 8;

/**
 * `min` to 256 characters, counted as the code points of its NFC, and passed on as it came. Nothing is cut off, and what is
 * longer is refused before anything is computed of it.
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
 * Length only: composition rules make passwords worse (NIST SP 800-63B, section 3.1.1.2). What is too common is
 * `PasswordService.check`'s business.
 */
export const newPassword = password(8);
export const anyPassword = password(1);

/** One instance for each use: the contract tells what they accept by instance. */
export const name = line(100);
export const device = line(100);
export const searchText = line(100);
export const identity = line(400).refine((text) => identityFault(text) === undefined, 'names no IP address');

/** A member that may be left out, or `null`: many generated clients write what is absent so. */
const optional = <T extends z.ZodType>(schema: T) => schema.nullish().transform((value) => value ?? undefined);

const namesSomething = (change: object) => Object.values(change).some((value) => value !== undefined);

export const registerSchema = z.strictObject({
  email,
  password: newPassword,
  name,
  device: optional(device),
});
export const loginSchema = z.strictObject({ email, password: anyPassword, device: optional(device) });
export const refreshSchema = z.strictObject({ refresh_token: z.string().min(1).max(512) });
/** Unknown members are ignored (RFC 6749, section 3.1): client libraries send more. */
export const revokeSchema = z.object({
  token: z.string().min(1).max(4_096),
  token_type_hint: optional(z.string().max(64)),
});
export const passwordSchema = z.strictObject({ currentPassword: anyPassword, newPassword });

const oneTimeToken = z.string().min(1).max(128);
export const recoverySchema = z.strictObject({ email });
export const resetSchema = z.strictObject({ token: oneTimeToken, newPassword });
export const verificationSchema = z.strictObject({ token: oneTimeToken });

export const profileSchema = z.strictObject({ name: optional(name) }).refine(namesSomething, 'names nothing to change');

export const userChangeSchema = z
  .strictObject({
    name: optional(name),
    role: optional(z.enum(['user', 'admin'])),
    status: optional(z.enum(['active', 'disabled'])),
  })
  .refine(namesSomething, 'names nothing to change');

/** A whole number from 1, as text. */
const count = (fallback: number, max: number) =>
  z
    .string()
    .regex(/^[1-9]\d{0,6}$/, `must be a whole number from 1 to ${max}`)
    .transform(Number)
    .pipe(z.number().max(max, `must be a whole number from 1 to ${max}`))
    .default(fallback);

export const listSchema = z.strictObject({
  page: count(1, 100_000),
  limit: count(20, 100),
  q: searchText.optional(),
});

export const warmingParam = z.strictObject({ job: z.string().max(64) });
export const warmingSchema = z.strictObject({
  concurrency: count(5, 20),
  restart: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true'),
});

export const userParam = z.strictObject({ id: z.string().max(64) });
export const sessionParam = z.strictObject({ id: z.string().max(128) });

/** A counter: a policy and whom it counts, such as `user:<id>`, `address:203.0.113.7` or `address:… account:<e-mail>`. */
export const counterSchema = z.strictObject({ policy: z.enum(POLICY_NAMES), identity });
