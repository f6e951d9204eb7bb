import { isUtf8 } from 'node:buffer';
import type { IncomingMessage } from 'node:http';
import { GatewayError } from './errors.ts';
import type { Arg, Command } from './reply.ts';

/** Bytes held at a time, over all clients: of requests, and of large responses that are not read yet. */
export class BodyBudget {
  readonly #limit: number;
  #used = 0;

  constructor(limitBytes: number) {
    this.#limit = limitBytes;
  }

  /** @throws {GatewayError} 503 when there is no room; nothing has been taken then */
  take(bytes: number): void {
    if (this.#used + bytes > this.#limit) {
      throw new GatewayError(503, `ERR the gateway is busy: it holds ${this.#used} bytes of requests and responses`);
    }
    this.#used += bytes;
  }

  release(bytes: number): void {
    this.#used -= bytes;
  }
}

/**
 * Reads a request's body, whose bytes then are on the budget until `released` is called.
 * @param limitBytes bodies over it are refused, before they are read where their length is announced
 * @throws {GatewayError} 413 when too large, 503 when there is no room, 400 when the client went away half way
 */
export function readBody(
  request: IncomingMessage,
  limitBytes: number,
  budget: BodyBudget,
): Promise<{ body: Buffer; release: () => void }> {
  const announced = Number(request.headers['content-length'] ?? 0);
  if (announced > limitBytes) {
    request.resume();
    return Promise.reject(tooLarge(limitBytes));
  }
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const release = () => {
      budget.release(length);
      length = 0;
    };
    const fail = (error: Error) => {
      release();
      chunks.length = 0;
      // The rest is thrown away as it comes, so that the client gets to read the response.
      request.removeAllListeners('data').resume();
      reject(error);
    };
    request.on('data', (chunk: Buffer) => {
      if (length + chunk.length > limitBytes) return fail(tooLarge(limitBytes));
      try {
        budget.take(chunk.length);
      } catch (error) {
        return fail(error as Error);
      }
      length += chunk.length;
      chunks.push(chunk);
    });
    request.on('end', () => resolve({ body: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks), release }));
    // Half a body is never run: a command whose end is missing is another command.
    request.on('error', () => fail(new GatewayError(400, 'ERR the request ended before its body was complete')));
  });
}

function tooLarge(limitBytes: number): GatewayError {
  return new GatewayError(413, `ERR max request size exceeded. Limit: ${limitBytes} bytes`);
}

/** Reads `["SET","key","value"]`. @throws {GatewayError} 400 */
export function parseCommand(body: Buffer): Command {
  return toCommand(parseJson(body));
}

/** Reads `[["SET","key","value"],["GET","key"]]`. @throws {GatewayError} 400 */
export function parseCommands(body: Buffer): Command[] {
  const value = parseJson(body);
  if (!Array.isArray(value)) throw new GatewayError(400, 'ERR the body must be a JSON array of commands');
  return value.map((command, index) => toCommand(command, index));
}

function parseJson(body: Buffer): unknown {
  // Replaced characters would be stored in place of what the client meant.
  if (!isUtf8(body)) throw new GatewayError(400, 'ERR failed to parse the request: the body is not valid UTF-8');
  const text = body.toString('utf8');
  try {
    const value: unknown = JSON.parse(text);
    if (!hasInexactNumber(value)) return value;
    // A number that a double cannot hold (9007199254740993, 0.10): take it as it was written, which costs a slower
    // parse, so only now.
    return JSON.parse(text, keepInexactText);
  } catch {
    throw new GatewayError(400, 'ERR failed to parse the request: the body is not valid JSON');
  }
}

/** Whole numbers that a double holds are left alone: 60.0 and 6e1 are 60, whatever else the body has. */
function keepInexactText(_key: string, value: unknown, context?: { source?: string }): unknown {
  return isInexact(value) ? (context?.source ?? String(value)) : value;
}

function hasInexactNumber(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(hasInexactNumber);
  return isInexact(value);
}

function isInexact(value: unknown): boolean {
  return typeof value === 'number' && !Number.isSafeInteger(value);
}

function toCommand(value: unknown, index?: number): Command {
  const where = index === undefined ? '' : ` ${index + 1}`;
  if (!Array.isArray(value) || value.length === 0) {
    throw new GatewayError(400, `ERR command${where} must be a non-empty JSON array`);
  }
  for (let i = 0; i < value.length; i++) {
    const arg: unknown = value[i];
    if (typeof arg === 'string') continue;
    if (typeof arg !== 'number' && typeof arg !== 'boolean') {
      throw new GatewayError(400, `ERR argument ${i} of command${where} must be a string, a number or a boolean`);
    }
    value[i] = String(arg);
  }
  return value as [Arg, ...Arg[]];
}
