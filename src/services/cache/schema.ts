/**
 * The part of Standard Schema (https://standardschema.dev; zod, valibot, arktype and others) that is used here. Validation
 * must be synchronous.
 */
export interface CacheSchema<T> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => unknown;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
  };
}

/** A value after parsing and validation. */
export type Decoded = { ok: true; value: unknown } | { ok: false };

/** @throws {TypeError} when the schema is asynchronous */
export function decode(json: string, schema: CacheSchema<unknown> | undefined): Decoded {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return { ok: false };
  }
  if (schema === undefined) return { ok: true, value };
  const result = schema['~standard'].validate(value);
  if (typeof result !== 'object' || result === null || 'then' in result) {
    throw new TypeError('the schema of a cached value must be synchronous');
  }
  if ('issues' in result && result.issues !== undefined) return { ok: false };
  return { ok: true, value: (result as { value: unknown }).value };
}
