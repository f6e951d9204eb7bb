import type { Context } from 'hono';

import type { RequestScope } from '../services/scope';

/** The bindings and variables in every handler's context. */
export interface AppEnv {
  Bindings: Env;
  Variables: { requestId: string; request: RequestScope };
}

/** A context with variables that checks have added. */
export type ContextWith<V extends object> = Context<{
  Bindings: AppEnv['Bindings'];
  Variables: AppEnv['Variables'] & V;
}>;

/** The same context, seen with variables that a check has added or adds now. */
export function contextWith<V extends object>(c: Context<AppEnv>): ContextWith<V> {
  // Hono's Context is invariant in its variables, so only a cast can add some.
  return c as unknown as ContextWith<V>;
}
