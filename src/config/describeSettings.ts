import { schema } from './env';
import { UNIT_MS } from './fields';
import type { LimitSettings } from './fields';

/** A setting's effective value, for people to read. */
export interface Setting {
  name: string;
  /** `null`: not set, and without a default. Secrets are masked. */
  value: string | null;
  isSecret: boolean;
  isDefault: boolean;
}

const SECRET = /^(?!LIMIT_).*(?:_KEYS|_TOKEN|_SECRET|_PASSWORD)$/;

/** All settings. Secrets and credentials in URLs are masked. */
export function describeSettings(bindings: object): Setting[] {
  const given = bindings as Readonly<Record<string, unknown>>;
  return Object.entries(schema.shape).map(([name, field]) => {
    const isDefault = given[name] === undefined;
    const isSecret = SECRET.test(name);
    const value = isSecret ? (isDefault ? null : '(secret)') : textOf(field.safeParse(given[name]).data);
    return { name, value, isSecret, isDefault };
  });
}

function textOf(value: unknown): string | null {
  if (value === undefined) return null;
  if (Array.isArray(value)) return value.join(', ');
  if (typeof value === 'string') return withoutCredentials(value);
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  const { maxRequests, windowMs } = value as LimitSettings;
  const [unit, ms] = Object.entries(UNIT_MS).findLast(([, length]) => windowMs % length === 0) ?? ['ms', 1];
  return `${maxRequests}/${windowMs / ms}${unit}`;
}

function withoutCredentials(text: string): string {
  if (!/^https?:/.test(text) || !URL.canParse(text)) return text;
  const { origin, pathname } = new URL(text);
  return `${origin}${decodeURI(pathname)}`;
}
