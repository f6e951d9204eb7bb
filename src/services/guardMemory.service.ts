import type { RedisBatch } from '../redis/batch';
import { sleep } from '../util/retry';
import { facade } from './scope';
import type { IsolateMemory } from './memory/isolateMemory';
import type { Question } from './memory/refresher';
import { createLeasing } from './rateLimit/leasing';
import type { LeasingDeps } from './rateLimit/leasing';

/**
 * What an isolate remembers of Redis's replies, for guards that accept a bound of staleness: see docs/busy-callers.md. The
 * services remember and recall; here is what keeps it fresh.
 */
export interface GuardMemoryService {
  /**
   * After a response: sends what has become due in this isolate, for all callers, as one pipeline beside the request.
   * Nothing when another one is under way.
   */
  refresh(): void;
}

declare module './scope' {
  interface ServiceMap {
    guardMemory: GuardMemoryService;
  }
}

export const GuardMemoryService: GuardMemoryService = facade('guardMemory');

export interface GuardMemoryDeps extends LeasingDeps {
  memory: IsolateMemory;
  /** A batch with a deadline of its own. */
  freshBatch: () => RedisBatch;
  waitUntil: (promise: Promise<unknown>) => void;
}

export function createGuardMemoryService(deps: GuardMemoryDeps): GuardMemoryService {
  const { memory, freshBatch, waitUntil, now } = deps;
  const { dueReturns } = createLeasing(deps);

  async function ask(questions: readonly Question[], ended: () => void): Promise<void> {
    // The response leaves first.
    await sleep(0);
    const through = freshBatch();
    const release = through.hold();
    const asked: Promise<void>[] = [];
    try {
      for (const question of questions) asked.push(question(through));
    } finally {
      release();
    }
    try {
      await Promise.all(asked);
    } finally {
      ended();
    }
  }

  return {
    refresh() {
      const nowMs = now();
      const questions = [...memory.refresher.take(nowMs), ...dueReturns(nowMs)];
      if (questions.length > 0) waitUntil(ask(questions, memory.refresher.begin(nowMs)));
    },
  };
}

/** Whether {@link GuardMemoryService.refresh} has something to do: most responses leave nothing. */
export function hasDue({ refresher, leases }: IsolateMemory, nowMs: number): boolean {
  return refresher.size > 0 || leases.hasDue(nowMs);
}
