import type { ExtractSchema } from 'hono/types';

import type { Routes } from '../../src/client/hono.ts';
import type { createApp } from '../../src/app';

/**
 * Compiled, never run: what the contract says of each route's successes is what its handler returns. A member that a
 * handler gains, loses or changes makes this fail to compile until `src/routes/contract/responses.ts` says the same.
 */

type Served = ExtractSchema<ReturnType<typeof createApp>>;
type Success = 200 | 201 | 202;

type OutputOf<T, S> = T extends { output: infer Output; status: infer Status }
  ? S extends Status
    ? Output
    : never
  : never;

/** Members of every part of a union. */
type Members<T> = T extends unknown ? keyof T : never;
type Equal<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;

/** With `undefined` for what may be missing, as Hono writes it. */
type Loose<T> = T extends readonly (infer Item)[]
  ? Loose<Item>[]
  : T extends object
    ? { [K in keyof T]: Loose<T[K]> | (object extends Pick<T, K> ? undefined : never) }
    : T;

/** `true` where what is served fits the contract and has no member that the contract lacks. */
type Fits<Name, A, B> = [A] extends [B]
  ? Equal<Members<A>, Members<B>> extends true
    ? true
    : Bad<Name, A, B>
  : Bad<Name, A, B>;
interface Bad<Name, A, B> {
  operation: Name;
  served: A;
  contract: B;
}

/** jose's type of a key has every member that any key may have. */
type Foreign = '/.well-known/jwks.json';

type Compared = {
  [Path in Exclude<keyof Served & keyof Routes, Foreign>]: {
    [Method in keyof Served[Path] & keyof Routes[Path]]: {
      [S in Success]: Fits<
        `${Method & string} ${Path} ${S}`,
        OutputOf<Served[Path][Method], S>,
        Loose<OutputOf<Routes[Path][Method], S>>
      >;
    };
  };
};

type Differences = {
  [Path in keyof Compared]: {
    [Method in keyof Compared[Path]]: Compared[Path][Method][keyof Compared[Path][Method]];
  }[keyof Compared[Path]];
}[keyof Compared];

/**
 * The operations that differ are named in the error. Most often a handler lacks its status (`c.json(body, 200)`), or the
 * operation lacks its entry in `src/routes/contract` (docs/routes.md, "The contract").
 */
export const none: [Exclude<Differences, true>] extends [never] ? true : Exclude<Differences, true> = true;

type Lacking<A, B> = Exclude<keyof A, keyof B>;
interface Paths<OnlyServed, OnlyInContract> {
  onlyServed: OnlyServed;
  onlyInContract: OnlyInContract;
}

/** Neither side has a path that the other lacks. The error names such paths; `npm run openapi` adds what is only served. */
export const paths: Paths<Lacking<Served, Routes>, Lacking<Routes, Served>> extends Paths<never, never>
  ? true
  : Paths<Lacking<Served, Routes>, Lacking<Routes, Served>> = true;
