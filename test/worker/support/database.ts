import { env } from 'cloudflare:workers';

type Query = () => Promise<unknown>;

const STEPS = new Set<string | symbol>(['withSession', 'prepare', 'bind']);
const QUERIES = new Set<string | symbol>(['all', 'run', 'raw', 'first', 'exec']);

/** The tests' database, each of whose round trips goes through `through`: to be counted, held up or refused. */
export function tappedD1(through: (query: Query, kind: 'single' | 'batch') => Promise<unknown>): D1Database {
  const originals = new WeakMap<object, object>();

  function wrap<T extends object>(target: T): T {
    const proxy = new Proxy(target, {
      get(object, name) {
        const member = Reflect.get(object, name) as unknown;
        if (typeof member !== 'function') return member;
        const method = member.bind(object) as (...args: unknown[]) => unknown;
        if (STEPS.has(name)) return (...args: unknown[]) => wrap(method(...args) as object);
        if (QUERIES.has(name))
          return (...args: unknown[]) => through(() => method(...args) as Promise<unknown>, 'single');
        if (name !== 'batch') return method;
        // D1 knows its own statements only.
        return (statements: object[]) =>
          through(() => method(statements.map((one) => originals.get(one))) as Promise<unknown>, 'batch');
      },
    });
    originals.set(proxy, target);
    return proxy;
  }

  return wrap(env.DB);
}
