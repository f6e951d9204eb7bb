import * as z from 'zod';

import { keySetFaults } from './keySet';
import type { KeySetConfig, SetKind } from './keySet';

/** `5/15m`: admitted requests and window (`s`, `m`, `h` or `d`). */
export interface LimitSettings {
  maxRequests: number;
  windowMs: number;
}

export const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Whether a limiter counts exactly with these numbers: its products are safe integers. */
export const isCountable = ({ maxRequests, windowMs }: LimitSettings): boolean =>
  maxRequests * windowMs <= Number.MAX_SAFE_INTEGER / 4;
export const TOO_LARGE = 'is too large: requests times milliseconds must be below 2^51';

export const limit = (fallback: string) =>
  z
    .string()
    .regex(/^[1-9]\d{0,8}\/[1-9]\d{0,5}[smhd]$/, 'expected REQUESTS/WINDOW, such as 5/15m')
    .default(fallback)
    .transform((text): LimitSettings => {
      const [count = '', window = ''] = text.split('/');
      const unit = window.slice(-1) as keyof typeof UNIT_MS;
      return { maxRequests: Number(count), windowMs: Number(window.slice(0, -1)) * UNIT_MS[unit] };
    })
    .refine(isCountable, TOO_LARGE);

export const integer = (fallback: number, min = 1, max = Number.MAX_SAFE_INTEGER) =>
  z.coerce.number().int().min(min).max(max).default(fallback);

export const list = z
  .string()
  .default('')
  .transform((text) => text.split(',').flatMap((part) => part.trim() || []));

/** A set of keys with states, as `npm run keys` writes it: one active, any number of next and retired ones. */
export const keySet = (kind: SetKind) =>
  z
    .string()
    .min(1)
    .transform((text, context) => {
      try {
        return JSON.parse(text) as unknown;
      } catch {
        // Not the parser's own message: it quotes the text, which is a secret.
        context.addIssue('is not JSON (create it with `npm run keys`)');
        return z.NEVER;
      }
    })
    .transform((value, context): KeySetConfig => {
      for (const fault of keySetFaults(kind, value)) context.addIssue(fault);
      return value as KeySetConfig;
    });

/** scrypt's cost: N = 2^ln, block size r, parallelism p (RFC 7914). It needs 128·N·r bytes. */
export interface ScryptParameters {
  ln: number;
  r: number;
  p: number;
}

/** The runtime's cap on N·r·p. */
const SCRYPT_CAP = 2 ** 20;
/**
 * Least p for a memory of 2^ln KiB (ln with r = 8): the OWASP Password Storage Cheat Sheet's equivalent configurations, without
 * the one that needs all of an isolate's 128 MiB.
 */
const LEAST_P: Readonly<Record<number, number>> = { 13: 10, 14: 5, 15: 3, 16: 2 };

/** Whether the parameters are at least as expensive as OWASP asks, and within the runtime's cap. */
export function isStrong({ ln, r, p }: ScryptParameters): boolean {
  const memory = ln + Math.floor(Math.log2(r / 8));
  return 2 ** ln * r * p <= SCRYPT_CAP && p >= (LEAST_P[memory] ?? Number.POSITIVE_INFINITY);
}

/** One line without control characters: it becomes part of a mail's header. */
export const line = z
  .string()
  .trim()
  .min(1)
  .max(60)
  .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'must not contain control characters');

/** The target of a mail's link: a web page or a deep link of the app. */
export const linkTemplate = z
  .string()
  .max(1_000)
  .refine((text) => text.split('{token}').length === 2, 'must contain {token} once')
  .refine((text) => !/\s/.test(text) && URL.canParse(text.replace('{token}', 'x')), 'must be a URL')
  .optional();

/** Whether a URL's host can only be on a developer's machine (RFC 6761, section 6; RFC 1122, section 3.2.1.3). */
export function isDeveloperMachine(url: string): boolean {
  const hostname = URL.canParse(url) ? new URL(url).hostname : '';
  return /^(?:127(?:\.\d+){3}|\[::1\]|(?:.+\.)?localhost|.+\.test)$/.test(hostname);
}

/** The URL for ranges of hashes: the first five digits of a hash are appended. */
export const rangeUrl = z
  .url({ protocol: /^https?$/ })
  .max(500)
  .refine((text) => text.startsWith('https:') || isDeveloperMachine(text), 'must use https')
  .refine((text) => !/[?#]/.test(text), 'must have no query and no fragment')
  .transform((text) => (text.endsWith('/') ? text : `${text}/`))
  .optional();
