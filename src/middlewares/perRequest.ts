import type { Context } from 'hono';

let count = 0;

/**
 * What a middleware notes about a request, in the request's context.
 *
 * A `WeakMap` by context would do the same, but costs garbage collections: V8's young-generation collector takes the values
 * of a `WeakMap` that has outlived it for reachable. A value that refers to its context then keeps the whole request until the
 * next full collection.
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
