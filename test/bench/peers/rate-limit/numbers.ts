import { env } from 'cloudflare:workers';

/** The bindings that these Workers have beside the app's own. */
interface Numbers {
  MAX_REQUESTS: string;
  WINDOW_MS: string;
}

const { MAX_REQUESTS, WINDOW_MS } = env as unknown as Numbers;

export const maxRequests = Number(MAX_REQUESTS);
export const windowMs = Number(WINDOW_MS);
