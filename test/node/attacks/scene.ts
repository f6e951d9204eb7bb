import { isDeepStrictEqual } from 'node:util';
import { expect } from 'vitest';

import { ERRORS } from '../../../src/errors.ts';
import type { ErrorCode } from '../../../src/errors.ts';
import { rateLimitRecord } from '../../../src/redis/scripts/rateLimitRecord.ts';
import { PATIENT } from '../../support/app.ts';
import type { Answer } from '../../support/client.ts';
import type { Mailbox } from '../../support/mailbox.ts';
import { startScene } from '../faults/scene.ts';
import type { Account, Scene, SignedIn } from '../faults/scene.ts';

export type Victim = Account & SignedIn;

/** What no client may read: files, lines, and the names of the app's parts. */
const INTERNALS =
  /\.[jt]s:\d|node_modules|\n\s+at |\b(?:SQLITE|D1_ERROR|drizzle|ZodError|TypeError|RangeError|SyntaxError|NOSCRIPT|WRONGTYPE|EVALSHA|HMGET)\b|ERR_[A-Z]|scrypt|JWS|JWT/;

/** A refusal: a problem document with a code of the table, and not a word too many. */
export function expectRefused(answer: Answer, ...codes: ErrorCode[]): void {
  const { status, headers, body } = answer;
  expect(codes, `${status} ${JSON.stringify(body)}`).toContain((body as { code?: unknown }).code);
  expect(status).toBe(ERRORS[(body as { code: ErrorCode }).code].status);
  expect(status).toBeGreaterThanOrEqual(400);
  expect(status).toBeLessThan(500);
  expect(headers.get('Content-Type')).toBe('application/problem+json');
  expect(headers.get('Cache-Control')).toBe('no-store');
  expect(headers.get('X-Request-Id')).toBe(body.requestId);
  if (status === 401) expect(headers.get('WWW-Authenticate')).toMatch(/^Bearer/);
  expect(JSON.stringify(body)).not.toMatch(INTERNALS);
  expect(JSON.stringify(body)).not.toMatch(/eyJ|grt1\.|got[rvcud]1\.|@example\.com/);
}

export interface AttackScene extends Scene {
  /** Reads the caller's account: what an attacker with a token would do first. */
  me(token: string): Promise<Answer>;
}

/** The built Worker before a real engine that counts what it is asked. */
export async function startAttack(settings: Record<string, string> = {}, email?: Mailbox): Promise<AttackScene> {
  const scene = await startScene({ ...PATIENT, ...settings }, email);
  return { ...scene, me: (token) => scene.call('GET', '/v1/users/me', { token }) };
}

/** The victim notices nothing: the access token is as good as before. */
export async function expectUnharmed(scene: AttackScene, { access, id }: Victim): Promise<void> {
  const answer = await scene.me(access);
  expect([answer.status, answer.body.id]).toEqual([200, id]);
}

/** Every log line is one JSON object; none says a secret, or that something failed within. */
export function expectQuietLogs({ app: { logs } }: AttackScene, ...secrets: string[]): void {
  // The registrations at least were logged, so the lines do arrive.
  expect(logs.join('\n')).toContain('"audit.registered"');
  for (const line of logs) {
    expect(line).not.toMatch(/[\r\n]/);
    const { level, event } = JSON.parse(line) as { level: string; event: string };
    expect({ level, line }).not.toMatchObject({ level: 'error' });
    expect(event).toMatch(/^[a-z_]+\.[a-z_]+$/);
  }
  const text = logs.join('\n');
  expect(text).not.toMatch(/@example\.com|horse battery|grt1\.|got[rvcud]1\.|eyJ/);
  for (const secret of secrets) expect(text).not.toContain(secret);
}

/** What may differ between the responses of two cases: everything but random values and times. */
export function face({ status, headers, body }: Answer): unknown {
  const { requestId: _, ...said } = body as Record<string, unknown>;
  const shown = [...headers]
    .filter(([name]) => !['x-request-id', 'date'].includes(name))
    // A limit's seconds run on between the two.
    .map(([name, value]) => [name, name === 'ratelimit' ? value.replaceAll(/t=\d+/g, 't=') : value]);
  return { status, headers: shown, said };
}

/**
 * Requests that a stranger must not be able to distinguish. An isolate's upkeep (a heartbeat, a message from the outbox) may run beside any one of
 * them; a difference that a stranger can use is there each time.
 *
 * @param measure sends each of them anew
 */
export async function expectAlike(measure: () => Promise<unknown[]>): Promise<void> {
  let seen = await measure();
  for (
    let again = 0;
    again < 2 &&
    !isDeepStrictEqual(
      seen,
      seen.map(() => seen[0]),
    );
    again += 1
  )
    seen = await measure();
  for (const other of seen) expect(other).toEqual(seen[0]);
}

/**
 * What a request cost: its pipelines, with each command's name. Units of an earlier request's lease go back behind
 * whichever request comes next, and are not counted as this one's.
 */
export async function costOf(
  { redis }: AttackScene,
  send: () => Promise<Answer>,
): Promise<{ face: unknown; answer: Answer; pipelines: string[][] }> {
  await redis.idle();
  redis.reset();
  const answer = await send();
  await redis.idle();
  const isOwn = (command: readonly (string | number)[], at: number): boolean => {
    const [, sha, , counter = ''] = command;
    if (sha !== rateLimitRecord.sha) return true;
    return redis.requests.slice(0, at).some(({ commands }) => commands.some((earlier) => earlier.includes(counter)));
  };
  const pipelines = redis.requests
    .map(({ commands }, at) => commands.filter((command) => isOwn(command, at)).map(([name]) => String(name)))
    .filter((names) => names.length > 0);
  return { face: face(answer), answer, pipelines };
}
