import { connect } from 'node:net';

import type { Answer } from '../../support/client.ts';

/** Bytes as they are, one a character: what no HTTP library would send. */
export async function send(url: string, text: string): Promise<Answer> {
  const { hostname, port } = new URL(url);
  const chunks: Buffer[] = [];
  await new Promise<void>((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(Buffer.from(text, 'latin1')));
    socket.setTimeout(10_000, () => socket.destroy(new Error('no answer')));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    // A server that refuses a request half way may reset what it has not read; what it said counts.
    socket.on('error', (error) => (chunks.length > 0 ? resolve() : reject(error)));
    socket.on('close', () => resolve());
  });
  return parse(Buffer.concat(chunks));
}

/** A request with header lines in the order given; one answer, then the connection ends. */
export function request(url: string, line: string, headers: readonly string[], body = ''): Promise<Answer> {
  const { host } = new URL(url);
  const lines = [`${line} HTTP/1.1`, `Host: ${host}`, 'Connection: close', ...headers];
  return send(url, `${lines.join('\r\n')}\r\n\r\n${body}`);
}

function parse(bytes: Buffer): Answer {
  const end = bytes.indexOf('\r\n\r\n');
  const [first = '', ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n');
  const headers = new Headers(
    lines.map((line): [string, string] => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]),
  );
  const rest = bytes.subarray(end + 4);
  const text = (headers.get('Transfer-Encoding') === 'chunked' ? unchunked(rest) : rest).toString();
  const json = headers.get('Content-Type')?.includes('json') === true;
  return { status: Number(first.split(' ')[1]), headers, body: json ? JSON.parse(text) : text };
}

function unchunked(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf('\r\n', at);
    const size = Number.parseInt(bytes.subarray(at, end).toString(), 16);
    if (!(size > 0)) break;
    parts.push(bytes.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
  }
  return Buffer.concat(parts);
}
