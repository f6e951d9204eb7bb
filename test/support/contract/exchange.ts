import { openApi, operationOf, requestValidator, responseValidator } from './contract.ts';
import type { ApiResponse } from './contract.ts';

/** A request and its response, as they went over HTTP. */
export interface Exchange {
  method: string;
  url: string;
  request: { type: string; body?: string };
  status: number;
  headers: Headers;
  body: string;
}

/** Response headers that may only come where the document says so. */
const TELLING = [
  'RateLimit',
  'RateLimit-Policy',
  'Retry-After',
  'WWW-Authenticate',
  'ETag',
  'Age',
  'Cache-Status',
  'Idempotency-Replayed',
  'Gatehouse-Degraded',
  'X-Request-Id',
];

/** Where in the document an exchange is: operation, status (or `default`), and the code of an error. */
export interface Place {
  operation: string;
  status: string;
  code?: string;
}

/** What an exchange shows: its place, and in what it differs from the document. */
export function examine(exchange: Exchange): { place?: Place; faults: string[] } {
  const { method, url, status, headers, body, request } = exchange;
  const { pathname, searchParams } = new URL(url);
  const type = (headers.get('Content-Type') ?? '').split(';')[0]?.trim() ?? '';
  const json = type.endsWith('json') && method !== 'HEAD' ? parse(body) : type === 'text/plain' ? body : undefined;
  const code = type === 'application/problem+json' ? String((json as { code?: unknown })?.code) : undefined;
  const faults: string[] = [];
  const fault = (text: string) => faults.push(`${method} ${pathname} ${status} ${code ?? ''}: ${text}`);

  const documented = operationOf(method, pathname);
  if (documented === undefined) {
    // A path that is not served, or not by this method.
    const expected = ['NOT_FOUND', 'METHOD_NOT_ALLOWED', 'CONFIG_INVALID', 'UNSUPPORTED_MEDIA_TYPE', 'BODY_TOO_LARGE'];
    if (method !== 'OPTIONS' && method !== 'HEAD' && !expected.includes(code ?? '')) fault('is not in the document');
    return { faults };
  }

  const { name, operation } = documented;
  const statusKey = String(status) in operation.responses ? String(status) : 'default';
  const response = operation.responses[statusKey] as ApiResponse;
  const place: Place = { operation: name, status: statusKey, ...(code !== undefined && { code }) };
  if (statusKey === 'default' && code === undefined) fault('the document does not have this status');

  const content = response.content?.[type];
  if (body !== '' && content === undefined) fault(`the document does not have ${type} here`);
  if (body === '' && method !== 'HEAD' && response.content !== undefined) fault('the document has a body here');
  if (content !== undefined && method !== 'HEAD') {
    const validate = responseValidator(content.schema);
    if (!validate(json))
      fault(validate.errors?.map(({ instancePath, message }) => `${instancePath} ${message}`).join('; ') ?? '');
    if (code !== undefined && !(code in (content.examples ?? {}))) fault('the document does not have this code here');
    if (code !== undefined && (json as { status?: unknown }).status !== status) fault('its body has another status');
  }
  for (const header of TELLING) {
    if (headers.has(header) && !(header in response.headers))
      fault(`the document does not have the header ${header} here`);
  }

  if (status >= 200 && status < 300) {
    for (const text of acceptedFaults(operation, request, searchParams)) fault(`accepted, and ${text}`);
  }
  return { place, faults };
}

/** In what a request that the server has accepted differs from what the document asks for. */
function acceptedFaults(
  { requestBody, parameters = [] }: NonNullable<ReturnType<typeof operationOf>>['operation'],
  { type, body }: Exchange['request'],
  query: URLSearchParams,
): string[] {
  const faults: string[] = [];
  const content = requestBody?.content[type.split(';')[0]?.trim().toLowerCase() ?? ''];
  if (requestBody !== undefined && content === undefined) faults.push(`the document does not take ${type}`);
  if (content !== undefined && body !== undefined) {
    const value = type.includes('form') ? Object.fromEntries(new URLSearchParams(body)) : parse(body);
    const validate = requestValidator(content.schema);
    if (!validate(withoutNullEnums(value, content.schema)))
      faults.push(`its body is not valid: ${validate.errors?.[0]?.instancePath} ${validate.errors?.[0]?.message}`);
  }
  for (const [name, text] of query) {
    const parameter = parameters.find((candidate) => candidate.in === 'query' && candidate.name === name);
    if (parameter === undefined) {
      faults.push(`the document does not have the parameter ${name}`);
      continue;
    }
    const asJson = (parameter.schema as { type?: string }).type === 'string' ? text : parse(text);
    if (!requestValidator(parameter.schema)(asJson)) faults.push(`its parameter ${name} is not valid`);
  }
  return faults;
}

/**
 * Without `null` for enumerations: the server takes it for any member that may be left out, and the document does not say
 * so of enumerations, because generators of Kotlin break on it.
 */
function withoutNullEnums(value: unknown, schema: { $ref?: string }): unknown {
  const { properties = {} } = (openApi.components.schemas[schema.$ref?.split('/').at(-1) ?? ''] ?? {}) as {
    properties?: Record<string, object>;
  };
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const kept = Object.entries(value).filter(
    ([name, member]) => member !== null || !('enum' in (properties[name] ?? {})),
  );
  return Object.fromEntries(kept);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Compared with a schema, it fails there.
    return undefined;
  }
}
