import { readFileSync } from 'node:fs';

import { Ajv2020 } from 'ajv/dist/2020.js';
import type { ValidateFunction } from 'ajv/dist/2020.js';

/** The document, as far as the checks read it. */
export interface OpenApi {
  paths: Record<string, Record<string, ApiOperation>>;
  components: { schemas: Record<string, object>; examples: Record<string, unknown> };
}

export interface ApiOperation {
  operationId: string;
  description?: string;
  /** A change that may be repeated without a key. */
  'x-idempotent'?: boolean;
  security: object[];
  parameters?: { name: string; in: 'path' | 'query' | 'header'; required: boolean; schema: object }[];
  requestBody?: { content: Record<string, { schema: object }> };
  responses: Record<string, ApiResponse>;
}

export interface ApiResponse {
  headers: Record<string, object>;
  content?: Record<string, { schema: object; examples?: Record<string, object> }>;
}

export const openApi = JSON.parse(
  readFileSync(new URL('../../../docs/openapi.json', import.meta.url), 'utf8'),
) as OpenApi;

/** An operation of the document. */
export interface Documented {
  /** `METHOD /path/{id}` */
  name: string;
  method: string;
  path: string;
  operation: ApiOperation;
}

export const operations: readonly Documented[] = Object.entries(openApi.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    name: `${method.toUpperCase()} ${path}`,
    method: method.toUpperCase(),
    path,
    operation,
  })),
);

const patterns = operations
  .map((documented) => ({
    documented,
    pattern: new RegExp(`^${documented.path.replaceAll('.', '\\.').replace(/\{[\w-]+\}/g, '[^/]+')}$`),
  }))
  // `/v1/users/me` before `/v1/users/{id}`.
  .toSorted((a, b) => Number(a.documented.path.includes('{')) - Number(b.documented.path.includes('{')));

/** The operation that a request is for; `undefined` when the document has none. */
export function operationOf(method: string, path: string): Documented | undefined {
  const asked = method === 'HEAD' ? 'GET' : method;
  return patterns.find(({ documented, pattern }) => documented.method === asked && pattern.test(path))?.documented;
}

const FORMATS = {
  // In UTC and whole seconds, as the contract promises.
  'date-time': /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/,
  email: /^[^\s@]+@[^\s@]+$/,
  password: true,
  uri: /^[a-z][a-z0-9+.-]*:\S+$/i,
} as const;

function validators(document: OpenApi, formats: Record<string, RegExp | true>): (schema: object) => ValidateFunction {
  const ajv = new Ajv2020({ strict: false, allErrors: true, formats });
  ajv.addSchema(document, 'contract');
  const made = new Map<object, ValidateFunction>();
  return (schema) => {
    const known = made.get(schema);
    if (known !== undefined) return known;
    const absolute = JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"contract#/')) as object;
    const validate = ajv.compile(absolute);
    made.set(schema, validate);
    return validate;
  };
}

/** What a request may send. */
export const requestValidator = validators(openApi, {
  ...FORMATS,
  // The server trims it, as the description says.
  email: /^\s*[^\s@]+@[^\s@]+\s*$/,
});
/** What a response may hold; here an object has no members but the documented ones. */
export const responseValidator = validators(closed(openApi), FORMATS);

function closed(document: OpenApi): OpenApi {
  const copy = structuredClone(document);
  const close = (schema: unknown): void => {
    if (typeof schema !== 'object' || schema === null) return;
    if ('type' in schema && schema.type === 'object' && 'properties' in schema && !('additionalProperties' in schema)) {
      Object.assign(schema, { additionalProperties: false });
    }
    Object.values(schema).forEach(close);
  };
  Object.values(copy.components.schemas).forEach(close);
  return copy;
}
