import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';

/** Whether the system accounts for the CPU of single processes in the way that is read here. */
export const hasCpuAccounting = existsSync('/proc/self/stat');

let ticksPerSecond: number | undefined;

/** User and system time of a process since its start, all threads, in microseconds. */
export function cpuMicrosOf(pid: number): number {
  ticksPerSecond ??= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  // The second field, the program's name, is in parentheses and may hold spaces.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1_000_000) / ticksPerSecond;
}
