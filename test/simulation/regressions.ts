import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import type { Plan } from './plan.ts';

const FOLDER = fileURLToPath(new URL('./regressions', import.meta.url));

/** Plans that once failed, shrunk: `npm run simulate -- --seed N --save NAME` writes them. */
export const REGRESSIONS: readonly { name: string; plan: Plan }[] = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.json'))
  .map((name) => {
    const { plan } = JSON.parse(readFileSync(`${FOLDER}/${name}`, 'utf8')) as { plan: Plan };
    return { name: name.replace(/\.json$/, ''), plan };
  });
