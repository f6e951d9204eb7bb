type Fetch = (request: Request, ...rest: never[]) => Response | Promise<Response>;

/** Callbacks that run once all middlewares have returned a request's response. */
const waiting = new WeakMap<Request, (() => void)[]>();

/**
 * Wraps an app's `fetch`: it runs the callbacks of {@link afterResponse} once it has returned the response. Until then the
 * middlewares still use the request's context, so later work must not.
 *
 * @example
 * const app = new Hono<AppEnv>().use(services());
 * app.fetch = notifyingAfterResponse(app.fetch);
 */
export function notifyingAfterResponse<F extends Fetch>(fetch: F): F {
  const notifying = async (request: Request, ...rest: never[]): Promise<Response> => {
    const callbacks: (() => void)[] = [];
    waiting.set(request, callbacks);
    try {
      return await fetch(request, ...rest);
    } finally {
      waiting.delete(request);
      for (const callback of callbacks) callback();
    }
  };
  return notifying as F;
}

/**
 * @returns `false` when the callback will not run: the app's `fetch` is not {@link notifyingAfterResponse}, or this is another
 *   request object than the one that it was given
 */
export function afterResponse(request: Request, callback: () => void): boolean {
  const callbacks = waiting.get(request);
  callbacks?.push(callback);
  return callbacks !== undefined;
}
