import { zValidator } from '@hono/zod-validator';
import type { Context, Next } from 'hono';
import { createMiddleware } from 'hono/factory';
import type { ZodType } from 'zod';

import { configOf } from '../config/env';
import { AppError } from '../errors';
import type { FieldError } from '../errors';
import { stating } from './contract';
import type { AppEnv } from './services.middleware';

export interface JsonBodyOptions {
  /** Paths that also accept a form (`application/x-www-form-urlencoded`), because a standard requires it. */
  forms?: readonly string[];
}

/**
 * Reads a request's body once, within the limit, as UTF-8 JSON. Validators check its content. A form is turned into the
 * equivalent JSON object.
 */
export function jsonBody({ forms = [] }: JsonBodyOptions = {}) {
  async function afterBody(c: Context<AppEnv>, body: ReadableStream<Uint8Array>, next: Next): Promise<void> {
    const limit = configOf(c.env).bodyLimitBytes;
    if (Number(c.req.header('Content-Length') ?? 0) > limit) throw tooLarge(limit);
    const text = decode(await readUpTo(body, limit));
    const type = c.req.header('Content-Type')?.split(';')[0]?.trim().toLowerCase();
    const form = type === 'application/x-www-form-urlencoded' && forms.includes(c.req.path);
    if (text !== '' && !form && type !== 'application/json') throw new AppError('UNSUPPORTED_MEDIA_TYPE');
    if (form) {
      const headers = new Headers(c.req.raw.headers);
      headers.set('Content-Type', 'application/json');
      c.req.raw = new Request(c.req.url, { method: c.req.method, headers });
    }
    // Hono's request reads its text from here. It keeps a promise, although its type says otherwise.
    (c.req.bodyCache as Record<string, unknown>)['text'] = Promise.resolve(form ? formAsJson(text) : text);
    return next();
  }

  // Not async: a promise of its own would cost every request without a body.
  const handler = createMiddleware<AppEnv>(function jsonBody(c, next): Promise<void> {
    const { body } = c.req.raw;
    return body === null ? next() : afterBody(c, body, next);
  });
  return stating(handler, { forms });
}

/** @throws {AppError} `MALFORMED_REQUEST` for a name given twice (RFC 6749, section 3.1) */
function formAsJson(text: string): string {
  const fields = [...new URLSearchParams(text)];
  const names = new Set(fields.map(([name]) => name));
  if (names.size < fields.length) throw new AppError('MALFORMED_REQUEST', { detail: 'A form field is given twice.' });
  return JSON.stringify(Object.fromEntries(fields));
}

function tooLarge(limit: number): AppError {
  return new AppError('BODY_TOO_LARGE', { detail: `The limit is ${limit} bytes.` });
}

async function readUpTo(body: ReadableStream<Uint8Array>, limit: number): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of body) {
      length += chunk.byteLength;
      // Leaving the loop cancels the stream.
      if (length > limit) throw tooLarge(limit);
      chunks.push(chunk);
    }
  } catch (error) {
    // Malformed chunks, or a client that disconnected half way: not a fault of the server.
    throw error instanceof AppError ? error : new AppError('MALFORMED_REQUEST');
  }
  return chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks);
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: false }).decode(bytes);
  } catch {
    throw new AppError('INVALID_ENCODING');
  }
}

interface Issue {
  path: PropertyKey[];
  message: string;
  code?: string | undefined;
  keys?: string[];
}

/** A validator's issues, each with a pointer to the value at fault. */
function fieldErrors(issues: readonly Issue[], target: 'json' | 'query' | 'param'): FieldError[] {
  return issues.flatMap(({ path, message, code, keys }): FieldError[] => {
    // Zod names unknown members in one issue of their parent.
    const places = code === 'unrecognized_keys' && keys ? keys.map((key) => [...path, key]) : [path];
    return places.slice(0, 20).map((place) => {
      const detail = code === 'unrecognized_keys' ? 'is not known here' : message;
      if (target !== 'json') return { parameter: place.join('.').slice(0, 128), detail };
      return { pointer: place.map((part) => `/${escapePointer(String(part).slice(0, 128))}`).join(''), detail };
    });
  });
}

/** RFC 6901, section 3. */
function escapePointer(part: string): string {
  return part.replaceAll('~', '~0').replaceAll('/', '~1');
}

/** Validates the JSON body, the query or the path; issues become `VALIDATION_FAILED` with the fields at fault. */
function validated<T extends ZodType, Target extends 'json' | 'query' | 'param'>(target: Target, schema: T) {
  const handler = zValidator(target, schema, (result) => {
    if (!result.success) {
      throw new AppError('VALIDATION_FAILED', { errors: fieldErrors(result.error.issues, target) });
    }
  });
  return stating(handler, { [target]: schema });
}

/** The position of the JSON syntax error. The text itself is left out: it may be a password. */
function placeOf(error: unknown): { detail?: string } {
  const message = error instanceof Error ? error.message : '';
  if (message.includes('end of JSON input')) return { detail: 'The JSON ends too early.' };
  const [, line, column] = /\(line (\d+) column (\d+)\)/.exec(message) ?? [];
  return line === undefined ? {} : { detail: `The JSON is malformed at line ${line}, column ${column}.` };
}

/**
 * @throws {AppError} `UNSUPPORTED_MEDIA_TYPE` or `MALFORMED_JSON` when there is no JSON body where one is needed
 */
async function assertJson(c: Context): Promise<void> {
  const text = await c.req.text();
  if (text === '') {
    throw c.req.header('Content-Type')?.includes('json') === false
      ? new AppError('UNSUPPORTED_MEDIA_TYPE')
      : new AppError('MALFORMED_JSON', { detail: 'A JSON body is required.' });
  }
  try {
    JSON.parse(text);
  } catch (error) {
    throw new AppError('MALFORMED_JSON', placeOf(error));
  }
}

export const validQuery = <T extends ZodType>(schema: T) => validated('query', schema);
export const validParam = <T extends ZodType>(schema: T) => validated('param', schema);

/** Like the two above. Without this one a body is not read as JSON at all. */
export function validJson<T extends ZodType>(schema: T) {
  const validate = validated('json', schema);
  const handler: typeof validate = async function validJson(c, next) {
    await assertJson(c);
    return validate(c, next);
  };
  return stating(handler, { json: schema });
}
