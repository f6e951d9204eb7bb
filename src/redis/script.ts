import { createHash } from 'node:crypto';

interface ScriptText {
  readonly text: string;
  readonly sha: string;
}

/** A Lua script and its SHA-1, by which Redis knows it once it has run. Every key that it touches is in KEYS. */
export interface Script extends ScriptText {
  /**
   * The same for Upstash, where a script without this flag takes a lock on the whole database; stock Redis refuses it
   * (https://upstash.com/docs/redis/features/key-locking).
   */
  readonly locking: ScriptText;
}

export function defineScript(text: string): Script {
  return { ...named(text), locking: named(`#!lua flags=allow-key-locking\n${text}`) };
}

function named(text: string): ScriptText {
  return { text, sha: createHash('sha1').update(text).digest('hex') };
}
