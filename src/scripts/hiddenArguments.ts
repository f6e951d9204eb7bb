import { isMainThread } from 'node:worker_threads';

/** Where {@link startWrangler} puts arguments that hold secrets, as JSON. */
export const HIDDEN_ARGUMENTS = 'WRANGLER_HIDDEN_ARGUMENTS';

/**
 * Preloaded into wrangler. Every user of a machine can read the arguments of its processes (`ps`), and only its owner
 * the environment of one; what stands in `process.argv` is not what `ps` shows. The variable is removed, so that what
 * wrangler starts does not inherit it.
 */
const hidden = process.env[HIDDEN_ARGUMENTS];
if (isMainThread && hidden !== undefined) {
  Reflect.deleteProperty(process.env, HIDDEN_ARGUMENTS);
  process.argv.push(...(JSON.parse(hidden) as string[]));
}
