import { type ErrorReply, RESP_TYPES } from 'redis';

/** One argument of a command: text, or bytes as they came from a request's body or path. */
export type Arg = string | Buffer;

/** A command with its arguments, name first. Never empty. */
export type Command = readonly [Arg, ...Arg[]];

/**
 * A RESP2 reply. Integers are decimal text (`string`), because RESP integers have 64 bits and JavaScript numbers 53;
 * strings are bytes (`Buffer`). In the {@link RESP_SHAPE} simple strings are text as well.
 */
export type Reply = Buffer | string | null | ErrorReply | Reply[];

/** The outcome of one command: its reply, or the error that stands in its place. */
export type Outcome = Reply | Error;

/** How node-redis maps RESP types to JavaScript for a response in JSON: `Buffer` is a string, `string` an integer. */
export const JSON_SHAPE = {
  [RESP_TYPES.BLOB_STRING]: Buffer,
  [RESP_TYPES.SIMPLE_STRING]: Buffer,
  [RESP_TYPES.NUMBER]: String,
} as const;

/** The same for a response in raw RESP2, where a simple string (`+OK`) and a blob (`$2`) are written differently. */
export const RESP_SHAPE = {
  [RESP_TYPES.BLOB_STRING]: Buffer,
  [RESP_TYPES.NUMBER]: String,
} as const;

export type Shape = typeof JSON_SHAPE | typeof RESP_SHAPE;
