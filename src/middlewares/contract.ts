import type { ZodType } from 'zod';

/** What a middleware has to do with a route's contract. Read when the contract is generated, never while serving. */
export interface Facts {
  readonly json?: ZodType;
  readonly query?: ZodType;
  readonly param?: ZodType;
  readonly checks?: readonly { readonly name: string }[];
  /** Paths that also take a form. */
  readonly forms?: readonly string[];
}

const FACTS = Symbol('facts');

/** Attaches facts to a middleware. */
export function stating<T extends object>(handler: T, facts: Facts): T {
  return Object.assign(handler, { [FACTS]: facts });
}

export function factsOf(handler: object): Facts {
  return (handler as { [FACTS]?: Facts })[FACTS] ?? {};
}
