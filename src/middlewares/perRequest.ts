import type { Context } from 'hono';

let count = 0;

/**
 * A middleware's data about a request, kept in the request's context.
 *
 * A `WeakMap` by context would do the same, but costs garbage collections: V8's young-generation collector treats the
 * values of a `WeakMap` in the old generation as reachable. A value that refers to its context then keeps the whole request
 * until the next full collection.
 */
export class PerRequest<T> {
  readonly #name: string;

  constructor() {
    count += 1;
    this.#name = `per request ${count}`;
  }

  get(c: Context): T | undefined {
    return c.get(this.#name) as T | undefined;
  }

  set(c: Context, value: T): void {
    c.set(this.#name, value);
  }
}
