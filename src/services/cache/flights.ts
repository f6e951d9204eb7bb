/**
 * Single flight in one isolate: whoever asks for a value that is being loaded waits for that load. Only plain strings
 * are shared between requests; workerd forbids more. The leader's load must be kept alive by its own request
 * (`waitUntil`); followers trust nobody and race a timer of their own.
 */
export class Flights {
  readonly #flights = new Map<string, Promise<string | undefined>>();

  #generation = 0;

  /** Part of every key: changes with each invalidation that this isolate knows of, also while Redis is away. */
  get generation(): number {
    return this.#generation;
  }

  /** From now on nobody joins a load that has begun. */
  separate(): void {
    this.#generation += 1;
  }

  /** Loads under way. */
  get size(): number {
    return this.#flights.size;
  }

  /**
   * @param key names the value and the state of the cache that it was missed in, so that nobody joins a load that began
   *   before an invalidation they have seen
   * @param load `undefined` for "there is no such thing"
   */
  async run(
    key: string,
    load: () => Promise<string | undefined>,
    { deadlineMs, keepAlive }: { deadlineMs: number; keepAlive: (promise: Promise<unknown>) => void },
  ): Promise<string | undefined> {
    const flight = this.#flights.get(key);
    if (flight === undefined) {
      const led = load().finally(() => {
        if (this.#flights.get(key) === led) this.#flights.delete(key);
      });
      this.#flights.set(key, led);
      keepAlive(led.catch(() => undefined));
      return led;
    }

    let timer: ReturnType<typeof setTimeout> | undefined;
    const lost = new Promise<'lost'>((resolve) => {
      timer = setTimeout(() => resolve('lost'), deadlineMs);
    });
    try {
      const outcome = await Promise.race([flight.then((json) => ({ json })), lost]);
      if (outcome !== 'lost') return outcome.json;
    } finally {
      clearTimeout(timer);
    }
    // The leader died without a word: out with its flight.
    if (this.#flights.get(key) === flight) this.#flights.delete(key);
    return load();
  }
}
