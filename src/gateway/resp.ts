import { wireText } from './errors.ts';
import type { Outcome } from './reply.ts';

const CRLF = Buffer.from('\r\n');

/**
 * Writes replies in raw RESP2 (`Upstash-Response-Format: resp2`); a pipeline's stand one after the other.
 * Replies must have been asked for in the RESP_SHAPE. Two distinctions are lost on the way through node-redis: a null
 * array is written as a null string (`$-1`), and a status reply that a script makes of digits only as an integer.
 */
export function writeResp(outcomes: readonly Outcome[]): Buffer {
  const parts: Buffer[] = [];
  for (const outcome of outcomes) append(parts, outcome);
  return Buffer.concat(parts);
}

function append(parts: Buffer[], outcome: Outcome): void {
  if (outcome === null) {
    parts.push(Buffer.from('$-1\r\n'));
  } else if (Buffer.isBuffer(outcome)) {
    parts.push(Buffer.from(`$${outcome.length}\r\n`), outcome, CRLF);
  } else if (typeof outcome === 'string') {
    parts.push(Buffer.from(`${/^-?\d+$/.test(outcome) ? ':' : '+'}${outcome}\r\n`));
  } else if (outcome instanceof Error) {
    // A line break would end the error early and leave its rest to be read as the next reply.
    parts.push(Buffer.from(`-${wireText(outcome).replaceAll(/[\r\n]+/g, ' ')}\r\n`));
  } else {
    parts.push(Buffer.from(`*${outcome.length}\r\n`));
    for (const reply of outcome) append(parts, reply);
  }
}
