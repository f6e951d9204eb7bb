import type { RedisBatch } from '../../redis/batch';

/**
 * Asks Redis again about one remembered reply. Issues its commands at once, and never rejects because of Redis. It outlives
 * the request that registered it, so it refers to plain data only.
 */
export type Question = (through: RedisBatch) => Promise<void>;

/** The most questions in one pipeline. */
const QUESTIONS_AT_ONCE = 200;

/** Further questions are dropped: the remembered replies expire, and their callers ask Redis themselves. */
const MAX_DUE = 5_000;

/** Questions that an isolate asks again after a response, in one pipeline for all callers. */
export class Refresher {
  readonly #due = new Map<string, Question>();
  readonly #lostAfterMs: number;
  /** When a pipeline in flight counts as lost: its request has died. */
  #lostAtMs = 0;
  #underWay: symbol | undefined;

  /** @param lostAfterMs longer than a call to Redis can take */
  constructor(lostAfterMs: number) {
    this.#lostAfterMs = lostAfterMs;
  }

  get size(): number {
    return this.#due.size;
  }

  /** @param name identifies the question: it is asked once, even if noted repeatedly */
  note(name: string, question: Question): void {
    if (this.#due.size < MAX_DUE || this.#due.has(name)) this.#due.set(name, question);
  }

  /** The due questions; none while another pipeline is in flight. They then wait for a later response. */
  take(nowMs: number): Question[] {
    if (this.#due.size === 0 || (this.#underWay !== undefined && nowMs < this.#lostAtMs)) return [];
    const questions: Question[] = [];
    for (const [name, question] of this.#due) {
      if (questions.length === QUESTIONS_AT_ONCE) break;
      this.#due.delete(name);
      questions.push(question);
    }
    return questions;
  }

  /** Marks a pipeline as in flight. @returns call this when it has ended */
  begin(nowMs: number): () => void {
    const own = Symbol('pipeline');
    this.#underWay = own;
    this.#lostAtMs = nowMs + this.#lostAfterMs;
    return () => {
      if (this.#underWay === own) this.#underWay = undefined;
    };
  }
}
