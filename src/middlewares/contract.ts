import type { ZodType } from 'zod';

import type { Config } from '../config/env';
import type { ErrorCode } from '../errors';
import type { Limit } from '../services/rateLimit.service';

/** The kind of identity that a limiter counts; it determines how an identity is written. */
export type Counted =
  | 'caller'
  | 'address'
  | 'account'
  | 'address-and-account'
  | 'session'
  | 'session-or-address'
  | 'own';

/** Facts of a limiter, for the administrators' routes that show its counters. */
export interface LimiterFacts {
  /** `undefined`: each place where it is mounted counts for itself. */
  readonly name: string | undefined;
  readonly counts: Counted;
  readonly algorithm: Limit['algorithm'];
  /** Its own numbers; `undefined` where they depend on the request. */
  readonly limits: (config: Config) => readonly Limit[] | undefined;
}

/** Facts of a middleware. The generator of the contract and the administrators' routes read them. */
export interface Facts {
  readonly json?: ZodType;
  readonly query?: ZodType;
  readonly param?: ZodType;
  readonly checks?: readonly {
    readonly name: string;
    readonly codes?: readonly ErrorCode[];
    readonly limiter?: LimiterFacts;
  }[];
  /** Whether the checks may be decided from the isolate's memory. */
  readonly remembers?: boolean;
  /** Whether the route changes nothing, also with a method such as POST. */
  readonly changesNothing?: boolean;
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
