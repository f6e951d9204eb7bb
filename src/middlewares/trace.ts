import type { Context } from 'hono';

import type { AppEnv } from './appEnv';
import { routeOf } from './measured';

/** Workers' own tracing; `undefined` in runtimes without it, such as contexts that tests make. */
export function tracingOf({ executionCtx }: Context<AppEnv>): Tracing | undefined {
  return (executionCtx as { tracing?: Tracing }).tracing;
}

/** https://www.w3.org/TR/trace-context/#traceparent-header, version 00 and what later versions may append. */
const TRACEPARENT = /^(?!ff)[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-[\da-f]{2}(?:-.*)?$/;

/** Names the root span of a traced request by its route, once the response is made. */
export function nameTrace(c: Context<AppEnv>): void {
  const root = tracingOf(c)?.getActiveSpan();
  if (root?.isTraced !== true) return;
  const route = routeOf(c);
  const [, callerTrace, callerSpan] = TRACEPARENT.exec(c.req.header('traceparent') ?? '') ?? [];
  root.updateName(route === '' ? c.req.method : `${c.req.method} ${route}`).setAttributes({
    'http.route': route === '' ? undefined : route,
    'http.response.status_code': c.res.status,
    'gatehouse.request_id': c.get('requestId'),
    // The runtime begins its own trace for each request. This attribute links it to the caller's trace.
    'gatehouse.caller.trace_id': callerTrace,
    'gatehouse.caller.span_id': callerSpan,
  });
}
