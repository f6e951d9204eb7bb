import type { Problem } from './contract.ts';
import { ApiError, NetworkError } from './errors.ts';
import { retryAfterMs } from './transport.ts';

/** A response that was read to its end. */
export interface Reply {
  status: number;
  headers: Headers;
  text: string;
}

export async function readReply(response: Response): Promise<Reply> {
  const { status, headers } = response;
  return { status, headers, text: await response.text() };
}

/**
 * The body of a 2xx.
 *
 * @throws {ApiError} an error response of the API
 * @throws {NetworkError} anything else, such as the HTML of a proxy or a captive portal, whatever its status
 */
export function bodyOf(reply: Reply): unknown {
  const { status, headers } = reply;
  if (status === 204) return undefined;
  const body = jsonOf(reply);
  if (status >= 200 && status < 300 && body !== undefined) return body;
  if (status >= 400 && isProblem(body)) {
    const waitMs = retryAfterMs(headers);
    throw new ApiError(body, waitMs === undefined ? undefined : Math.ceil(waitMs / 1_000));
  }
  throw new NetworkError(`Not a response of the API (status ${status})`);
}

/** The stable code of an error response; `undefined` when the API did not send this. */
export function codeOf(reply: Reply): string | undefined {
  const body = jsonOf(reply);
  return isProblem(body) ? body.code : undefined;
}

function jsonOf({ headers, text }: Reply): unknown {
  if (!/^application\/([\w.-]+\+)?json\b/i.test(headers.get('Content-Type') ?? '')) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    // Cut off, or not JSON whatever its header says: treated like a body of another type.
    return undefined;
  }
}

function isProblem(body: unknown): body is Problem {
  return typeof body === 'object' && body !== null && 'code' in body && typeof body.code === 'string';
}
