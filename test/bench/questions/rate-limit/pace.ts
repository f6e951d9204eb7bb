import { Agent, get } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { setTimeout } from 'node:timers/promises';

/** An open loop: requests leave at their time, whether or not earlier ones have got their response. */
export interface Pace {
  /** When the first one leaves, as `Date.now()` counts. */
  startMs: number;
  intervalMs: number;
  requests: number;
}

/**
 * Sends evenly paced GETs.
 *
 * @returns whether each was admitted (200) or refused (429), in the order in which they left
 * @throws when a response is another one, or was made without Redis
 */
export async function runPaced(url: string, { startMs, intervalMs, requests }: Pace): Promise<boolean[]> {
  const agent = new Agent({ keepAlive: true });
  try {
    const answers: Promise<boolean>[] = [];
    while (answers.length < requests) {
      const dueMs = startMs + answers.length * intervalMs;
      const waitMs = dueMs - Date.now();
      if (waitMs > 0) await setTimeout(waitMs);
      const answer = isAdmitted(agent, url);
      // Reported once all have left, and not as an unhandled rejection.
      answer.catch(() => undefined);
      answers.push(answer);
    }
    return await Promise.all(answers);
  } finally {
    agent.destroy();
  }
}

/** A request and what became of it, as `Date.now()` counts. */
export interface Sent {
  admitted: boolean;
  sentMs: number;
  answeredMs: number;
}

/** Sends so many GETs at once, when the time has come. */
export async function runBurst(url: string, { atMs, requests }: { atMs: number; requests: number }): Promise<Sent[]> {
  const agent = new Agent({ keepAlive: true });
  try {
    await setTimeout(Math.max(0, atMs - Date.now()));
    return await Promise.all(
      Array.from({ length: requests }, async (): Promise<Sent> => {
        const sentMs = Date.now();
        const admitted = await isAdmitted(agent, url);
        return { admitted, sentMs, answeredMs: Date.now() };
      }),
    );
  } finally {
    agent.destroy();
  }
}

/**
 * The most admitted requests of which it is certain that one window contains them all: from when the first was sent to
 * when the last got its response it is no longer than that.
 */
export function worstWindow(sent: readonly Sent[], windowMs: number): number {
  const admitted = sent.filter((request) => request.admitted);
  const counts = admitted.map(
    ({ sentMs: startMs }) =>
      admitted.filter(({ sentMs, answeredMs }) => sentMs >= startMs && answeredMs < startMs + windowMs).length,
  );
  return Math.max(0, ...counts);
}

async function isAdmitted(agent: Agent, url: string): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  get(url, { agent }, resolve).on('error', reject);
  const answer = await promise;
  answer.resume();
  return admittedBy(answer.statusCode ?? 0, answer.headers['gatehouse-degraded'] !== undefined);
}

/** @throws unless the response is a decision that a limiter made with Redis */
export function admittedBy(status: number, degraded: boolean): boolean {
  if (degraded) throw new Error('a decision was made without Redis (is the machine too busy?)');
  if (status !== 200 && status !== 429) throw new Error(`answered ${status}`);
  return status === 200;
}
