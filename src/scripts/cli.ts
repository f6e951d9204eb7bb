import { fileURLToPath } from 'node:url';

/** The repository, wherever npm was called from. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A mistake that the caller can correct: it is reported without a stack, and the exit code is 1. */
export class UserError extends Error {
  override readonly name = 'UserError';
}

/**
 * Runs a command line program and turns its outcome into the exit code.
 *
 * Only a {@link UserError}, or the error of `util.parseArgs` for wrong arguments, is printed without a stack. Anything else is
 * a bug, and is printed with its stack.
 */
export async function runProgram(program: () => Promise<void>): Promise<void> {
  try {
    await program();
  } catch (error) {
    process.exitCode = 1;
    console.error(isUsers(error) ? error.message : error);
  }
}

function isUsers(error: unknown): error is Error {
  if (error instanceof UserError) return true;
  return error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
}
