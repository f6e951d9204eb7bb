import type { RedisBatch } from '../../redis/batch';

/**
 * Asks Redis again about one thing that this isolate remembers. Issues its commands at once, and never rejects because of
 * Redis. It outlives the request that noted it, so it refers to plain data only.
 */
export type Question = (through: RedisBatch) => Promise<void>;

/** Questions of one pipeline. */
const QUESTIONS_AT_ONCE = 200;

/** More than this are not noted: their memory ends, and their callers ask for themselves. */
const MAX_DUE = 5_000;

/** What an isolate is going to ask again after a response, in one pipeline for all callers. */
export class Refresher {
  readonly #due = new Map<string, Question>();
  readonly #lostAfterMs: number;
  /** When a pipeline that is under way is taken for lost: its request has died. */
  #lostAtMs = 0;
  #underWay: symbol | undefined;

  /** @param lostAfterMs longer than a call to Redis can take */
  constructor(lostAfterMs: number) {
    this.#lostAfterMs = lostAfterMs;
  }

  get size(): number {
    return this.#due.size;
  }

  /** @param name of the question: noted again, it is asked once */
  note(name: string, question: Question): void {
    if (this.#due.size < MAX_DUE || this.#due.has(name)) this.#due.set(name, question);
  }

  /** What has become due, unless another pipeline is under way: then it waits for the response that comes after that. */
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

  /** Marks a pipeline as under way. @returns to be called when it has ended */
  begin(nowMs: number): () => void {
    const own = Symbol('pipeline');
    this.#underWay = own;
    this.#lostAtMs = nowMs + this.#lostAfterMs;
    return () => {
      if (this.#underWay === own) this.#underWay = undefined;
    };
  }
}
