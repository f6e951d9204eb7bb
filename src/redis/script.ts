import { createHash } from 'node:crypto';

interface ScriptText {
  readonly text: string;
  readonly sha: string;
}

/** A Lua script and its SHA-1, under which Redis caches it once it has run. KEYS must hold every key that it touches. */
export interface Script extends ScriptText {
  /**
   * The same script for Upstash. Without this flag, Upstash locks the whole database for it; stock Redis refuses the flag
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
