import { env } from 'cloudflare:workers';

/** The bindings that these Workers have beside the app's own. */
interface Numbers {
  MAX_REQUESTS: string;
  WINDOW_MS: string;
  /** How long a busy caller's units may come from the isolate's lease; 0 where it is not there. */
  WITHIN_MS?: string;
}

const { MAX_REQUESTS, WINDOW_MS, WITHIN_MS = '0' } = env as unknown as Numbers;

export const maxRequests = Number(MAX_REQUESTS);
export const windowMs = Number(WINDOW_MS);
export const withinMs = Number(WITHIN_MS);
