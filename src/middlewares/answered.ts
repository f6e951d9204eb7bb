type Fetch = (request: Request, ...rest: never[]) => Response | Promise<Response>;

/** Who waits for a request's answer to be out of its middlewares' hands. */
const waiting = new WeakMap<Request, (() => void)[]>();

/**
 * An app's `fetch`, telling {@link onceAnswered} when the answer has left it: only then is the context that a request's
 * middlewares share free for work that goes on behind the answer.
 *
 * @example
 * const app = new Hono<AppEnv>().use(services());
 * app.fetch = tellingAnswered(app.fetch);
 */
export function tellingAnswered<F extends Fetch>(fetch: F): F {
  const telling = async (request: Request, ...rest: never[]): Promise<Response> => {
    const told: (() => void)[] = [];
    waiting.set(request, told);
    try {
      return await fetch(request, ...rest);
    } finally {
      waiting.delete(request);
      for (const tell of told) tell();
    }
  };
  return telling as F;
}

/** @returns `false` when nobody will tell: the app's `fetch` is not {@link tellingAnswered}, or the request another one */
export function onceAnswered(request: Request, tell: () => void): boolean {
  const told = waiting.get(request);
  told?.push(tell);
  return told !== undefined;
}
