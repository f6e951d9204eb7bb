import type { ZodType } from 'zod';

import type { ErrorCode } from '../../errors';

export interface ResponseDetails {
  description: string;
  /** Absent: no body. */
  body?: ZodType;
  /** Media type of the body. @default `application/json` */
  mediaType?: string;
  /** Names of headers in the contract, beside those that the route's middlewares set. */
  headers?: readonly string[];
}

/** Details of a route that its middlewares do not know. All are optional: a route without details is in the contract too. */
export interface OperationDetails {
  /** Name in generated clients. @default made of the method and the path */
  id?: string;
  summary?: string;
  description?: string;
  /**
   * For a change that takes no `Idempotency-Key`: a sentence that says why a repeat does no harm. The contract then marks it
   * with `x-idempotent`.
   */
  repeatable?: string;
  /** Heading of the docs page. @default the path's first part after `/v1` */
  tag?: string;
  /** @default `200`, any JSON */
  responses?: Readonly<Record<number, ResponseDetails>>;
  /** Codes that the handler throws, beside those of the route's middlewares. */
  codes?: readonly ErrorCode[];
  /** Whether its handler needs the database or Redis, on a route without checks. @default false */
  needsStores?: boolean;
}

const DETAILS = new Map<string, OperationDetails>();

/**
 * Adds details to a route's entry in the contract. Call it in `routes/contract`, which is not part of the Worker.
 *
 * @param operation `METHOD /path`, as it is served
 * @example
 * describe('GET /v1/orders', { id: 'listOrders', summary: 'Your orders', responses: { 200: { description: 'A list', body: orderList } } });
 */
export function describe(operation: string, details: OperationDetails): void {
  if (DETAILS.has(operation)) throw new TypeError(`${operation} is described twice`);
  DETAILS.set(operation, details);
}

const TAGS = new Map<string, string>();

/** Adds a sentence to a heading of the docs page. */
export function describeTag(name: string, description: string): void {
  TAGS.set(name, description);
}

export const tagOf = (name: string) => ({ name, description: TAGS.get(name) ?? `Routes of ${name}.` });
export const detailsOf = (operation: string): OperationDetails => DETAILS.get(operation) ?? {};
export const described = (): readonly string[] => [...DETAILS.keys()];
