import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import type { Invariant } from './model.ts';
import type { Plan } from './plan.ts';

const FOLDER = fileURLToPath(new URL('./regressions', import.meta.url));

/** Plans that once failed, or that show a mutation, shrunk: `npm run simulate -- --seed N --save NAME` writes them. */
export const REGRESSIONS: readonly { name: string; plan: Plan }[] = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.json'))
  .map((name) => {
    const { plan } = JSON.parse(readFileSync(`${FOLDER}/${name}`, 'utf8')) as { plan: Plan };
    return { name: name.replace(/\.json$/, ''), plan };
  });

/** Keeps a plan as a regression test. @returns where */
export function keep(name: string, invariant: Invariant, plan: Plan): string {
  const path = `${FOLDER}/${name}.json`;
  writeFileSync(path, `${JSON.stringify({ invariant, plan }, null, 2)}\n`);
  return path;
}
