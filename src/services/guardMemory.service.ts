import type { RedisBatch } from '../redis/batch';
import { sleep } from '../util/retry';
import { facade } from './scope';
import type { IsolateMemory } from './memory/isolateMemory';
import type { Question } from './memory/refresher';
import { createLeasing } from './rateLimit/leasing';
import type { LeasingDeps } from './rateLimit/leasing';

/**
 * Refreshes the isolate's memory of Redis's replies, for guards that accept bounded staleness: see docs/busy-callers.md.
 * The services themselves remember and recall.
 */
export interface GuardMemoryService {
  /**
   * After a response: sends the isolate's due questions, of all callers, as a separate pipeline. Does nothing while another
   * such pipeline is in flight.
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
  /** Makes a batch with its own deadline. */
  freshBatch: () => RedisBatch;
  waitUntil: (promise: Promise<unknown>) => void;
}

export function createGuardMemoryService(deps: GuardMemoryDeps): GuardMemoryService {
  const { memory, freshBatch, waitUntil, now } = deps;
  const { dueReturns } = createLeasing(deps);

  async function ask(questions: readonly Question[], ended: () => void): Promise<void> {
    // Let the response leave first.
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

/** Whether {@link GuardMemoryService.refresh} has work to do. After most responses it has none. */
export function hasDue({ refresher, leases }: IsolateMemory, nowMs: number): boolean {
  return refresher.size > 0 || leases.hasDue(nowMs);
}
