import { ERRORS } from '../../errors';
import type { ErrorCode } from '../../errors';
import { typeOf } from '../../middlewares/error.middleware';
import type { Operation } from './collect';
import type { OperationDetails } from './describe';
import type { Json } from './shapes';

/** Errors that every route may respond with. */
const ANYWHERE: readonly ErrorCode[] = ['INTERNAL', 'MALFORMED_REQUEST'];

const OF_CHECKS: Readonly<Record<string, readonly ErrorCode[]>> = {
  'authenticate()': ['AUTHENTICATION_REQUIRED', 'INVALID_TOKEN', 'TOKEN_EXPIRED', 'TOKEN_REVOKED', 'TOKEN_SUPERSEDED'],
  'requireRole()': ['FORBIDDEN'],
  'requireFresh()': ['REAUTHENTICATION_REQUIRED'],
  'rateLimiter()': ['RATE_LIMITED'],
  'idempotent()': ['IDEMPOTENCY_KEY_INVALID', 'IDEMPOTENCY_KEY_IN_USE', 'IDEMPOTENCY_KEY_REUSED'],
  'refreshed()': ['INVALID_TOKEN', 'TOKEN_EXPIRED', 'TOKEN_REVOKED', 'TOKEN_REUSED'],
};

/** The codes of an operation, by status; `default` holds the codes that any operation may return. */
export function codesOf(operation: Operation, details: OperationDetails): Map<string, ErrorCode[]> {
  const { json, query, param, takesForm, checks, checkCodes } = operation;
  const codes = new Set<ErrorCode>(['CONFIG_INVALID', ...(details.codes ?? [])]);
  const add = (...more: readonly ErrorCode[]) => more.forEach((code) => codes.add(code));
  for (const check of checks) add(...(OF_CHECKS[check] ?? []));
  add(...checkCodes);
  // Every route reads a body, also if it needs none.
  add('INVALID_ENCODING', 'UNSUPPORTED_MEDIA_TYPE', 'BODY_TOO_LARGE');
  if (json !== undefined) add('MALFORMED_JSON');
  if (json !== undefined || query !== undefined || param !== undefined) add('VALIDATION_FAILED');
  if (takesForm) add('MALFORMED_REQUEST');
  if (!operation.changesNothing) add('READ_ONLY');
  if (checks.size > 0 || details.needsStores === true) add('SERVICE_UNAVAILABLE');
  const byStatus = new Map<string, ErrorCode[]>();
  for (const code of codes) {
    const status = String(ERRORS[code].status);
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  byStatus.set('default', [...ANYWHERE]);
  return byStatus;
}

/** Further members of a code's problem documents. */
const OWN_MEMBERS: Partial<Record<ErrorCode, Json>> = {
  VALIDATION_FAILED: { errors: [{ pointer: '/email', detail: 'Invalid email address' }] },
  EMAIL_TAKEN: { errors: [{ pointer: '/email', detail: 'is already registered' }] },
  PASSWORD_INCORRECT: { errors: [{ pointer: '/currentPassword', detail: 'is not the password of this account' }] },
  RATE_LIMITED: { 'violated-policies': ['api'] },
};

/** A problem document as the app writes it. */
export function exampleOf(code: ErrorCode): Json {
  const { status, title } = ERRORS[code];
  return {
    type: typeOf(code),
    title,
    status,
    code,
    ...OWN_MEMBERS[code],
    requestId: '0d3a6f4e-5b1c-4a51-9d0c-1f2e3d4c5b6a',
  };
}

/** RFC 9457. One schema for all codes, because generators make a type of each schema. */
export const PROBLEM: Json = {
  type: 'object',
  description: 'An error (RFC 9457). Compare `code`; the texts are for people.',
  required: ['type', 'title', 'status', 'code', 'requestId'],
  properties: {
    type: { type: 'string', description: 'A URI that identifies the code.' },
    title: { type: 'string' },
    status: { type: 'integer', description: 'The response’s status.' },
    code: {
      type: 'string',
      description: `Stable. More may be added; known are ${Object.keys(ERRORS)
        .map((code) => `\`${code}\``)
        .join(', ')}.`,
      examples: Object.keys(ERRORS),
    },
    detail: { type: 'string', description: 'About this occurrence.' },
    errors: {
      type: 'array',
      description: 'The values at fault.',
      items: { $ref: '#/components/schemas/FieldError' },
    },
    'violated-policies': {
      type: 'array',
      description: 'The limits that refused the request (draft-ietf-httpapi-ratelimit-headers).',
      items: { type: 'string' },
    },
    requestId: { type: 'string', description: 'As in `X-Request-Id` and in the server’s log.' },
  },
  examples: [exampleOf('VALIDATION_FAILED')],
};

export const FIELD_ERROR: Json = {
  type: 'object',
  required: ['detail'],
  properties: {
    pointer: { type: 'string', description: 'A JSON pointer (RFC 6901) into the body.' },
    parameter: { type: 'string', description: 'The name of a query or path parameter.' },
    detail: { type: 'string' },
  },
};
