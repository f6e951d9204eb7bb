/** A RESP2 reply. A bulk string is bytes until it is known to be text: `DUMP` returns neither UTF-8 nor JSON. */
export type EngineReply = Buffer | string | number | null | EngineError | EngineReply[];

/** An error reply with its text, as Redis wrote it. */
export class EngineError {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Argument = string | number | Uint8Array;

export function encodeCommands(commands: readonly (readonly Argument[])[]): Buffer {
  const parts: (string | Uint8Array)[] = [];
  for (const command of commands) {
    parts.push(`*${command.length}\r\n`);
    for (const argument of command) {
      const bytes = typeof argument === 'object' ? argument : Buffer.from(String(argument));
      parts.push(`$${bytes.length}\r\n`, bytes, '\r\n');
    }
  }
  return Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
}

/** Takes bytes as they come and gives whole replies. */
export class ReplyParser {
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;

  push(bytes: Buffer): void {
    this.#bytes = this.#at === this.#bytes.length ? bytes : Buffer.concat([this.#bytes.subarray(this.#at), bytes]);
    this.#at = 0;
  }

  /** The next reply; `undefined` until all of it is there. */
  next(): { value: EngineReply } | undefined {
    const start = this.#at;
    const value = this.#read();
    if (value === undefined) this.#at = start;
    return value === undefined ? undefined : { value };
  }

  #read(): EngineReply | undefined {
    const end = this.#bytes.indexOf('\r\n', this.#at);
    if (end === -1) return undefined;
    const kind = this.#bytes[this.#at];
    const line = this.#bytes.toString('utf8', this.#at + 1, end);
    this.#at = end + 2;
    switch (kind ?? 0) {
      case 0x2b: // +
        return line;
      case 0x2d: // -
        return new EngineError(line);
      case 0x3a: // :
        return Number(line);
      case 0x24: // $
        return this.#bulk(Number(line));
      case 0x2a: // *
        return this.#array(Number(line));
      default:
        throw new Error(`the engine wrote ${String(kind)} where a reply begins`);
    }
  }

  #bulk(length: number): Buffer | null | undefined {
    if (length === -1) return null;
    if (this.#bytes.length < this.#at + length + 2) return undefined;
    const bytes = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length + 2;
    return bytes;
  }

  #array(length: number): EngineReply[] | null | undefined {
    if (length === -1) return null;
    const items: EngineReply[] = [];
    for (let index = 0; index < length; index += 1) {
      const item = this.#read();
      if (item === undefined) return undefined;
      items.push(item);
    }
    return items;
  }
}
