import type { Context } from 'hono';

import { log } from '../config/log';
import type { Meters, RefusalBudget } from '../services/isolate';
import { maskAddress } from '../util/ipAddress';
import { routeOf } from './measured';
import { PerRequest } from './perRequest';
import type { AppEnv } from './appEnv';

/** Bounds the lines of each event that an isolate writes in a window. It logs the count of the omitted lines after the window. */
const WINDOW_MS = 10_000;
const MAX_LINES = 50;

const REFUSALS: ReadonlySet<number> = new Set([401, 403, 409, 429]);

/** Facts of a response that the error handler passes to the log. */
export interface ProblemNote {
  code: string;
  policy?: string | undefined;
}

const notes = new PerRequest<ProblemNote>();

export function noteProblem(c: Context, note: ProblemNote): void {
  notes.set(c, note);
}

/** Logs a response that is a refusal, a failure or degraded. Call it once the response exists. */
export function logRefusal(c: Context<AppEnv>, { instruments, refusals }: Meters): void {
  const { status } = c.res;
  const { degraded, now } = c.get('request');
  const { code, policy } = notes.get(c) ?? {};
  const event = eventOf(status, code, degraded.size > 0);
  if (event === undefined) return;
  if (!mayWrite(refusals, event, now())) {
    instruments.logsLeftOut.count(event);
    return;
  }
  log(event === 'request.error' ? 'error' : status >= 400 ? 'warn' : 'info', event, {
    status,
    code,
    policy,
    degraded: degraded.size > 0 ? [...degraded].join(', ') : undefined,
    method: c.req.method,
    route: routeOf(c),
    address: maskAddress(c.req.header('CF-Connecting-IP') ?? ''),
  });
}

function eventOf(
  status: number,
  code: string | undefined,
  isDegraded: boolean,
): 'request.refused' | 'request.error' | 'request.degraded' | undefined {
  // The operator has set READ_ONLY: no failure.
  if (code === 'READ_ONLY') return 'request.refused';
  if (status >= 500) return 'request.error';
  if (REFUSALS.has(status)) return 'request.refused';
  return isDegraded ? 'request.degraded' : undefined;
}

function mayWrite(budgets: Map<string, RefusalBudget>, event: string, nowMs: number): boolean {
  const known = budgets.get(event);
  if (known !== undefined && Math.abs(nowMs - known.sinceMs) < WINDOW_MS) {
    known.lines += 1;
    if (known.lines <= MAX_LINES) return true;
    known.leftOut += 1;
    return false;
  }
  if (known !== undefined && known.leftOut > 0) log('warn', 'log.left_out', { of: event, lines: known.leftOut });
  budgets.set(event, { sinceMs: nowMs, lines: 1, leftOut: 0 });
  return true;
}
