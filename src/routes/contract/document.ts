import * as z from 'zod';

import { ERRORS } from '../../errors';
import type { ErrorCode } from '../../errors';
import type { Operation } from './collect';
import { detailsOf, tagOf } from './describe';
import type { OperationDetails, ResponseDetails } from './describe';
import { HEADERS, headersOf } from './headers';
import { codesOf, exampleOf, FIELD_ERROR, PROBLEM } from './problems';
import { inputSchema, outputSchemas } from './schemas';
import { INPUTS, OUTPUTS } from './shapes';
import type { Json } from './shapes';

const COMPONENTS = '#/components/schemas/';
const CODES = Object.keys(ERRORS) as ErrorCode[];
const ref = (name: string): Json => ({ $ref: `${COMPONENTS}${name}` });

const IDEMPOTENCY_KEY: Json = {
  name: 'Idempotency-Key',
  in: 'header',
  required: false,
  // No `example`: the docs page would send the same key with every request, and the API would refuse the second.
  description:
    'A quoted string of the client’s choice, such as `"8e03978e-40d5-43e8-bc93-6894a57f9324"`. The request runs once, however often it arrives with this key.',
  schema: { type: 'string', minLength: 3, maxLength: 257 },
};

/** The OpenAPI 3.1 document of an app's routes. */
export function createDocument(operations: readonly Operation[], version: string): Json {
  const inputs = new Map<unknown, string>(Object.entries(INPUTS).map(([name, schema]) => [schema, name]));
  const schemas: Record<string, Json> = {
    Problem: PROBLEM,
    FieldError: FIELD_ERROR,
    ...outputSchemas(OUTPUTS, COMPONENTS),
  };
  const paths: Record<string, Record<string, Json>> = {};
  const tags = new Set<string>();

  for (const operation of operations) {
    const details = detailsOf(`${operation.method} ${operation.path}`);
    const id = details.id ?? defaultId(operation);
    const tag = details.tag ?? defaultTag(operation);
    tags.add(tag);
    let bodyName: string | undefined;
    if (operation.json !== undefined) {
      bodyName = inputs.get(operation.json) ?? `${id[0]?.toUpperCase()}${id.slice(1)}Body`;
      schemas[bodyName] = inputSchema(operation.json);
    }
    const parameters = parametersOf(operation);
    const description = [details.description, details.repeatable].filter((text) => text !== undefined).join(' ');
    (paths[operation.path] ??= {})[operation.method.toLowerCase()] = {
      operationId: id,
      summary: details.summary ?? `${operation.method} ${operation.path}`,
      ...(description !== '' && { description }),
      ...(details.repeatable !== undefined && { 'x-idempotent': true }),
      tags: [tag],
      security: operation.checks.has('authenticate()') ? [{ accessToken: [] }] : [],
      ...(parameters.length > 0 && { parameters }),
      ...(bodyName !== undefined && { requestBody: bodyOf(bodyName, operation.takesForm) }),
      responses: responsesOf(operation, details),
    };
  }

  return {
    openapi: '3.1.1',
    info: {
      title: 'Gatehouse',
      version,
      description:
        'Accounts, device sessions, bearer tokens. Times are RFC 3339 in UTC, in whole seconds; errors are problem documents (RFC 9457).',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/', description: 'Where this document is served' }],
    tags: [...tags].map(tagOf),
    paths,
    components: {
      securitySchemes: { accessToken: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
      headers: used('headers', HEADERS, paths),
      examples: used('examples', Object.fromEntries(CODES.map((code) => [code, { value: exampleOf(code) }])), paths),
      schemas: Object.fromEntries(Object.entries(schemas).toSorted(([a], [b]) => (a < b ? -1 : 1))),
    },
  };
}

/** The components that the paths refer to. */
function used(kind: string, components: Readonly<Record<string, Json>>, paths: object): Record<string, Json> {
  const text = JSON.stringify(paths);
  return Object.fromEntries(
    Object.entries(components).filter(([name]) => text.includes(`"#/components/${kind}/${name}"`)),
  );
}

function bodyOf(name: string, takesForm: boolean): Json {
  const content = { schema: ref(name) };
  return {
    required: true,
    content: {
      'application/json': content,
      ...(takesForm && { 'application/x-www-form-urlencoded': content }),
    },
  };
}

function parametersOf({ path, param, query, checks, checkCodes }: Operation): Json[] {
  const ofPath = param === undefined ? undefined : inputSchema(param);
  const ofQuery = query === undefined ? undefined : inputSchema(query);
  const named = [...path.matchAll(/\{([\w-]+)\}/g)].map(([, name = '']) => ({
    name,
    in: 'path',
    required: true,
    schema: propertiesOf(ofPath)[name] ?? { type: 'string' },
  }));
  const required = new Set((ofQuery?.['required'] as string[] | undefined) ?? []);
  const searched = Object.entries(propertiesOf(ofQuery)).map(([name, schema]) => ({
    name,
    in: 'query',
    required: required.has(name),
    schema,
  }));
  const key = { ...IDEMPOTENCY_KEY, required: checkCodes.includes('IDEMPOTENCY_KEY_REQUIRED') };
  return [...named, ...searched, ...(checks.has('idempotent()') ? [key] : [])];
}

const propertiesOf = (schema: Json | undefined) => (schema?.['properties'] ?? {}) as Record<string, Json>;

function responsesOf(operation: Operation, details: OperationDetails): Json {
  const given = Object.entries(details.responses ?? { 200: { description: 'Success.', body: z.unknown() } });
  const responses = new Map<string, Json>();
  const headers = (status: string, more: readonly string[] = []) =>
    Object.fromEntries(
      [...headersOf(operation, status), ...more].map((name) => [name, { $ref: `#/components/headers/${name}` }]),
    );
  for (const [status, response] of given) {
    responses.set(status, {
      description: response.description,
      headers: headers(status, response.headers),
      ...contentOf(response),
    });
  }
  if (operation.checks.has('cached()')) {
    responses.set('304', { description: 'The client’s copy is current.', headers: headers('304') });
  }
  for (const [status, codes] of codesOf(operation, details)) {
    const present = responses.get(status);
    const problem = problemContent(codes);
    responses.set(status, {
      description: present?.['description'] ?? describeCodes(status, codes),
      headers: headers(status),
      content: { ...(present?.['content'] as Json | undefined), 'application/problem+json': problem },
    });
  }
  // Object keys that are numbers come first, in order; `default` is the last.
  return Object.fromEntries(responses);
}

function contentOf({ body, mediaType = 'application/json' }: ResponseDetails): Json {
  if (body === undefined) return {};
  const name = Object.entries(OUTPUTS).find(([, schema]) => schema === body)?.[0];
  const schema = name === undefined ? z.toJSONSchema(body, { io: 'output' }) : ref(name);
  delete schema['$schema'];
  return { content: { [mediaType]: { schema } } };
}

function problemContent(codes: readonly ErrorCode[]): Json {
  return {
    schema: ref('Problem'),
    examples: Object.fromEntries(codes.map((code) => [code, { $ref: `#/components/examples/${code}` }])),
  };
}

function describeCodes(status: string, codes: readonly ErrorCode[]): string {
  const list = codes.map((code) => `\`${code}\``).join(', ');
  return status === 'default' ? `Anything else, such as ${list}.` : `${list}.`;
}

/** `GET /v1/orders/{id}`: `getOrdersById` */
function defaultId({ method, path }: Operation): string {
  const words = path
    .replace(/^\/v\d+/, '')
    .split(/[/\-.]/)
    .filter((part) => part !== '')
    .map((part) => (part.startsWith('{') ? `by-${part.slice(1, -1)}` : part))
    .flatMap((part) => part.split('-'));
  return method.toLowerCase() + words.map((word) => `${word[0]?.toUpperCase()}${word.slice(1)}`).join('');
}

function defaultTag({ path }: Operation): string {
  const parts = path.replace(/^\/v\d+/, '').split('/');
  const first = parts.find((part) => part !== '' && !part.startsWith('{')) ?? 'Service';
  return `${first[0]?.toUpperCase()}${first.slice(1)}`;
}
