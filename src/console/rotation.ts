import type { KeySet } from '../client/contract.ts';

const SETS: Readonly<Record<string, string>> = {
  SIGNING_KEYS: 'signing',
  REFRESH_KEYS: 'refresh',
  PEPPER_KEYS: 'pepper',
};

/** The command for the next step of a set's rotation, and the step that must follow. */
export interface RotationStep {
  command: string;
  afterwards: string;
}

/** @param hostname of this page: on the developer's own machine the keys are in `.dev.vars` */
export function rotationOf({ name, next: { step } }: Pick<KeySet, 'name' | 'next'>, hostname: string): RotationStep {
  const isLocal = /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(hostname);
  const command = `npm run -s keys -- rotate --set ${SETS[name] ?? name}${step === 'drop' ? ' --drop-retired' : ''}`;
  return isLocal
    ? { command: `${command} --write`, afterwards: 'Then restart npm run dev.' }
    : {
        command: `${command} --from keys.env --write`,
        afterwards: 'Then deploy at once, with --secrets-file keys.env.',
      };
}
