import { deepEqual } from 'node:assert/strict';

import { afterAll } from 'vitest';

import { examine } from './exchange.ts';

/**
 * Setup of all tests in Node: compares every request that they make with `fetch`, and its response, with docs/openapi.json.
 * A file in which one differs fails.
 */
const faults = new Set<string>();
const pending = new Set<Promise<void>>();
const original = globalThis.fetch;

globalThis.fetch = async (input, init) => {
  const response = await original(input, init);
  // The app has both headers; the gateway has request ids as well, and Workers of benchmarks and tests routes of their own.
  const isApp = response.headers.has('X-Request-Id') && response.headers.has('Content-Security-Policy');
  if (isApp && !/^\/(bench|own)\//.test(new URL(response.url).pathname)) {
    const work = record(input, init, response.clone()).finally(() => pending.delete(work));
    pending.add(work);
  }
  return response;
};

async function record(input: Parameters<typeof fetch>[0], init: RequestInit = {}, response: Response): Promise<void> {
  const request = input instanceof Request ? input : undefined;
  const headers = new Headers(init.headers ?? request?.headers);
  const { body } = init;
  let text: string;
  try {
    text = await response.text();
  } catch {
    // Cut off by the test itself: there is nothing to compare.
    return;
  }
  const exchange = {
    method: (init.method ?? request?.method ?? 'GET').toUpperCase(),
    url: input instanceof Request ? input.url : String(new URL(input)),
    request: { type: headers.get('Content-Type') ?? '', ...(typeof body === 'string' && { body }) },
    status: response.status,
    headers: response.headers,
    body: text,
  };
  for (const fault of examine(exchange).faults) faults.add(fault);
}

afterAll(async () => {
  // The next file of this process makes a wrapper of its own.
  globalThis.fetch = original;
  await Promise.all(pending);
  deepEqual([...faults], [], 'HTTP traffic differs from docs/openapi.json');
});
