import { ErrorReply } from 'redis';
import { wireText } from './errors.ts';
import type { Outcome, Reply } from './reply.ts';

/** How strings are written: as UTF-8 text, or as base64 of their bytes (`Upstash-Encoding: base64`). */
export type Encoding = 'text' | 'base64';

const OK = Buffer.from('OK');

/** One command's result: `{"result":…}` or `{"error":"…"}`. */
export function writeOutcome(outcome: Outcome, encoding: Encoding): string {
  if (outcome instanceof Error) return writeError(wireText(outcome));
  // Clients take a bare OK as it stands, and decode everything else.
  if (encoding === 'base64' && Buffer.isBuffer(outcome) && outcome.equals(OK)) return '{"result":"OK"}';
  return `{"result":${writeReply(outcome, encoding)}}`;
}

/** A pipeline's results. Written as one string: joining hundreds of small ones costs more than the replies do. */
export function writeOutcomes(outcomes: readonly Outcome[], encoding: Encoding): string {
  let json = '[';
  for (let i = 0; i < outcomes.length; i++) {
    json += (i === 0 ? '' : ',') + writeOutcome(outcomes[i]!, encoding);
  }
  return json + ']';
}

/** `{"error":"…"}`, with the text as it is: clients look for `NOSCRIPT` and the like in it. */
export function writeError(message: string): string {
  return `{"error":${JSON.stringify(message)}}`;
}

function writeReply(reply: Reply, encoding: Encoding): string {
  if (reply === null) return 'null';
  if (typeof reply === 'string') return reply; // an integer's digits, exact to 64 bits
  if (Buffer.isBuffer(reply)) return writeString(reply, encoding);
  if (reply instanceof ErrorReply) return writeString(Buffer.from(reply.message), encoding); // nested in an array
  let json = '[';
  for (let i = 0; i < reply.length; i++) json += (i === 0 ? '' : ',') + writeReply(reply[i]!, encoding);
  return json + ']';
}

function writeString(bytes: Buffer, encoding: Encoding): string {
  // base64 has nothing that JSON would escape
  return encoding === 'base64' ? `"${bytes.toString('base64')}"` : JSON.stringify(bytes.toString('utf8'));
}
