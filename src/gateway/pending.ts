/**
 * Once a server has said nothing for so long and so many commands wait for it, further ones are refused at once: what
 * waits for one silent shard must not use up the room of those that reply.
 */
const SILENT = { afterMs: 500, commands: 1000 } as const;

/** The commands that were sent to a server and wait for its replies, and for how long it has been silent. */
export class Pending {
  readonly #most: number;
  #count = 0;
  #scripts = 0;
  /** Replies so far, and how many there were at the last look: cheaper than a clock read for each. */
  #replies = 0;
  #repliesSeen = 0;
  #progressAt = 0;

  /** @param most commands that may wait */
  constructor(most: number) {
    this.#most = most;
  }

  get count(): number {
    return this.#count;
  }

  /** Whether a script or a function is among them. */
  get hasScripts(): boolean {
    return this.#scripts > 0;
  }

  /** How long nothing has come back for what was sent, as of the last look. */
  get silentMs(): number {
    return this.#count === 0 || this.#replies !== this.#repliesSeen ? 0 : performance.now() - this.#progressAt;
  }

  /** Whether so many more may be sent. Something larger than all the room is let through when nothing waits. */
  hasRoom(commands: number): boolean {
    if (this.#count === 0) return true;
    if (this.#count + commands > this.#most) return false;
    return this.#count < SILENT.commands || this.silentMs <= SILENT.afterMs;
  }

  add(commands: number, scripts: number): void {
    if (this.#count === 0) this.#progressAt = performance.now();
    this.#count += commands;
    this.#scripts += scripts;
  }

  /** One reply has come, or will never come. */
  settle(): void {
    this.#count -= 1;
    this.#replies += 1;
  }

  settleScripts(scripts: number): void {
    this.#scripts -= scripts;
  }

  /** To be called often: notes whether replies have come since the last time. */
  look(): void {
    if (this.#replies === this.#repliesSeen) return;
    this.#repliesSeen = this.#replies;
    this.#progressAt = performance.now();
  }
}
