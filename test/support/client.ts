/** A small HTTP client for tests: JSON in, JSON out, headers and status at hand. */
export interface Answer {
  status: number;
  headers: Headers;
  // oxlint-disable-next-line typescript/no-explicit-any -- tests look into bodies of any shape
  body: any;
}

export interface CallOptions {
  token?: string;
  body?: unknown;
  /** In place of `body`, as it is. */
  raw?: string | Uint8Array<ArrayBuffer>;
  headers?: Record<string, string>;
}

export type Call = (method: string, path: string, options?: CallOptions) => Promise<Answer>;

export function clientOf(url: string, address = '203.0.113.7'): Call {
  return async (method, path, { token, body, raw, headers = {} } = {}) => {
    const payload = raw ?? (body === undefined ? undefined : JSON.stringify(body));
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        'CF-Connecting-IP': address,
        ...(payload !== undefined && { 'Content-Type': 'application/json' }),
        ...(token !== undefined && { Authorization: `Bearer ${token}` }),
        ...headers,
      },
      ...(payload !== undefined && { body: payload }),
    });
    const text = await response.text();
    const json = response.headers.get('Content-Type')?.includes('json') === true;
    return { status: response.status, headers: response.headers, body: json ? JSON.parse(text) : text };
  };
}

let counter = 0;

/** Details of a new user. */
export function newcomer() {
  counter += 1;
  return {
    email: `user${counter}.${Date.now()}@example.com`,
    password: 'correct horse battery',
    name: `User ${counter}`,
  };
}
