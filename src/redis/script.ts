import { createHash } from 'node:crypto';

/** A Lua script and its SHA-1, by which Redis knows it once it has run. */
export interface Script {
  readonly text: string;
  readonly sha: string;
}

export function defineScript(text: string): Script {
  return { text, sha: createHash('sha1').update(text).digest('hex') };
}
