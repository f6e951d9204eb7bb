import { GatewayError } from './errors.ts';

/** Counts the commands in flight, over all clients, and refuses more than the limit. */
export class Admission {
  readonly #limit: number;
  #inFlight = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** @throws {GatewayError} 503 when there is no room */
  async admit<T>(commands: number, work: () => Promise<T>): Promise<T> {
    // A batch larger than the whole limit runs alone: otherwise every retry of it would be refused.
    if (this.#inFlight > 0 && this.#inFlight + commands > this.#limit) {
      throw new GatewayError(
        503,
        `ERR the gateway is busy: ${this.#inFlight} commands are in flight, the limit is ${this.#limit}`,
      );
    }
    this.#inFlight += commands;
    try {
      return await work();
    } finally {
      this.#inFlight -= commands;
    }
  }
}
