import { env } from 'cloudflare:workers';

type Query = () => Promise<unknown>;

/** A D1 session: how it began, and how many queries it has made. */
interface Session {
  readonly mode: string;
  queries: number;
}

const STEPS = new Set<string | symbol>(['prepare', 'bind']);
const QUERIES = new Set<string | symbol>(['all', 'run', 'raw', 'first', 'exec']);

/**
 * The tests' database, each of whose round trips goes through `through`: to be counted, held up or refused.
 *
 * `place` says which query of which session it is (`first-primary 1`); `undefined` for one without a session.
 */
export function tappedD1(
  through: (query: Query, kind: 'single' | 'batch', place: string | undefined) => Promise<unknown>,
): D1Database {
  const originals = new WeakMap<object, object>();

  function wrap<T extends object>(target: T, session?: Session): T {
    const next = () => {
      if (session === undefined) return undefined;
      session.queries += 1;
      return `${session.mode} ${session.queries}`;
    };
    const proxy = new Proxy(target, {
      get(object, name) {
        const member = Reflect.get(object, name) as unknown;
        if (typeof member !== 'function') return member;
        const method = member.bind(object) as (...args: unknown[]) => unknown;
        if (name === 'withSession') {
          return (mode: string) => wrap(method(mode) as object, { mode, queries: 0 });
        }
        if (STEPS.has(name)) return (...args: unknown[]) => wrap(method(...args) as object, session);
        if (QUERIES.has(name))
          return (...args: unknown[]) => through(() => method(...args) as Promise<unknown>, 'single', next());
        if (name !== 'batch') return method;
        // D1 knows its own statements only.
        return (statements: object[]) =>
          through(() => method(statements.map((one) => originals.get(one))) as Promise<unknown>, 'batch', next());
      },
    });
    originals.set(proxy, target);
    return proxy;
  }

  return wrap(env.DB);
}
