import { spawn } from 'node:child_process';

import { ROOT, runProgram } from './cli.ts';

/** npm scripts, one after the other in each lane. The types take as long as all others together. */
const LANES = [['typecheck'], ['types:check', 'openapi -- --check', 'lint:openapi', 'lint', 'format:check']] as const;

/** What to do when one of the scripts has failed, where its own output does not say so. */
const HINTS: Readonly<Record<string, string>> = {
  'types:check': 'npm run types writes the types of the bindings.',
  'format:check': 'npm run format formats them.',
};

/** `npm run check`: ends with 1 when one of the scripts has failed. The rest of its lane is then left out. */
await runProgram(async () => {
  const lanes = await Promise.all(
    LANES.map(async (scripts) => {
      for (const script of scripts) {
        if ((await run(script)) === 0) continue;
        const hint = HINTS[script];
        if (hint !== undefined) process.stderr.write(`\n${hint}\n`);
        return false;
      }
      return true;
    }),
  );
  if (lanes.includes(false)) process.exitCode = 1;
});

function run(script: string): Promise<number | null> {
  const child = spawn(`npm run -s ${script}`, { cwd: ROOT, shell: true, stdio: 'inherit' });
  return new Promise((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
}
