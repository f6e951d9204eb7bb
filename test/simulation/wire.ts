/**
 * PostgreSQL's protocol, as far as the simulation looks into it
 * (https://www.postgresql.org/docs/current/protocol-message-formats.html).
 */

/** A message with its type, a letter; the first one of a client has none. */
interface Message {
  type: string;
  /** Where it ends in the bytes. */
  end: number;
  body: Buffer;
}

export function* messagesOf(bytes: Buffer): Generator<Message> {
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + bytes.readInt32BE(at + 1);
    yield { type: String.fromCharCode(bytes[at]!), end, body: bytes.subarray(at + 5, end) };
    at = end;
  }
}

/** A client's messages up to a point at which the server says that it is ready for the next ones. */
export interface Request {
  bytes: Buffer;
  sql: string;
}

/** @throws when the bytes end before the server can be ready */
export function requestsOf(bytes: Buffer): Request[] {
  const requests: Request[] = [];
  let from = 0;
  let sql = '';
  for (const { type, end, body } of messagesOf(bytes)) {
    if (type === 'Q') sql = textAt(body, 0);
    // The name of the prepared statement comes first.
    if (type === 'P') sql = textAt(body, textAt(body, 0).length + 1);
    if (type !== 'Q' && type !== 'S') continue;
    requests.push({ bytes: bytes.subarray(from, end), sql });
    from = end;
  }
  if (from !== bytes.length) throw new Error('a client has sent a part of a request');
  return requests;
}

/** Whether a client says goodbye. */
export const isTermination = (bytes: Buffer) => bytes[0] === 'X'.charCodeAt(0);

/** What a server has replied to a request. */
export interface Response {
  bytes: Buffer;
  /** Values as texts. */
  rows: (string | null)[][];
  /** Such as `UPDATE 1`. */
  tag: string;
  /** Its message, with an error's SQLSTATE. */
  error: string | undefined;
  /** Whether the session is in a transaction, or in one that has failed. */
  status: 'idle' | 'transaction' | 'failed';
}

const STATUSES: Readonly<Record<string, Response['status']>> = { I: 'idle', T: 'transaction', E: 'failed' };

export function responseOf(bytes: Buffer): Response {
  const response: Response = { bytes, rows: [], tag: '', error: undefined, status: 'idle' };
  for (const { type, body } of messagesOf(bytes)) {
    if (type === 'D') response.rows.push(valuesOf(body));
    if (type === 'C') response.tag = textAt(body, 0);
    if (type === 'E') response.error = errorOf(body);
    if (type === 'Z') response.status = STATUSES[String.fromCharCode(body[0]!)] ?? 'idle';
  }
  return response;
}

function valuesOf(body: Buffer): (string | null)[] {
  let at = 2;
  return Array.from({ length: body.readInt16BE(0) }, () => {
    const length = body.readInt32BE(at);
    at += 4;
    if (length < 0) return null;
    at += length;
    return body.toString('utf8', at - length, at);
  });
}

function errorOf(body: Buffer): string {
  const fields = new Map<string, string>();
  for (let at = 0; body[at] !== 0;) {
    const text = textAt(body, at + 1);
    fields.set(String.fromCharCode(body[at]!), text);
    at += 2 + Buffer.byteLength(text);
  }
  return `${fields.get('C')} ${fields.get('M')}`;
}

function textAt(bytes: Buffer, at: number): string {
  return bytes.toString('utf8', at, bytes.indexOf(0, at));
}

const message = (type: string, ...parts: (Buffer | string)[]): Buffer => {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(`${part}\0`) : part)));
  const head = Buffer.alloc(5, type);
  head.writeInt32BE(4 + body.length, 1);
  return Buffer.concat([head, body]);
};

export const query = (sql: string): Buffer => message('Q', sql);

/** After it a server closes the connection. @param code an SQLSTATE */
export const fatal = (code: string, text: string): Buffer =>
  message('E', 'SFATAL', 'VFATAL', `C${code}`, `M${text}`, Buffer.alloc(1));

/** For a message without an error before it. */
export const READY = message('Z', Buffer.from('I'));

/** A server that asks for no password accepts a session. */
export const WELCOME = Buffer.concat([
  message('R', Buffer.alloc(4)),
  message('S', 'server_version', '18.0'),
  message('S', 'client_encoding', 'UTF8'),
  message('K', Buffer.alloc(8)),
  READY,
]);
