import type { Result, Router } from 'hono/router';
import { RegExpRouter } from 'hono/router/reg-exp-router';
import { SmartRouter } from 'hono/router/smart-router';
import { TrieRouter } from 'hono/router/trie-router';

/**
 * Hono's routers, with a cache of their matches for paths without parameters. Hono's fast router does not support
 * `/v1/users/me` beside `/v1/users/:id`, and the other router searches its tree for every request.
 */
export class RememberingRouter<T> implements Router<T> {
  readonly name = 'RememberingRouter';
  readonly #router = new SmartRouter<T>({ routers: [new RegExpRouter<T>(), new TrieRouter<T>()] });
  /** By path and method of registered routes only, so that no client can make it grow. */
  readonly #matches = new Map<string, Map<string, Result<T>>>();
  readonly #methods = new Set<string>();

  add(method: string, path: string, handler: T): void {
    this.#router.add(method, path, handler);
    this.#methods.add(method);
    if (!/[:*{]/.test(path)) this.#matches.set(path, new Map());
  }

  match(method: string, path: string): Result<T> {
    const known = this.#matches.get(path);
    if (known === undefined || !this.#methods.has(method)) return this.#router.match(method, path);
    let result = known.get(method);
    if (result === undefined) {
      result = this.#router.match(method, path);
      known.set(method, result);
    }
    return result;
  }
}
