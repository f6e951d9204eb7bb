import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { openSession } from './apiSession.ts';
import type { ApiResponse, ApiSession, Credentials } from './apiSession.ts';
import { runProgram, UserError } from './cli.ts';
import { progressOn } from './warmBar.ts';
import type { Job, Progress } from './warmBar.ts';

const HELP = `npm run warm [-- [JOB …] [options]]

Fills the cache: runs the warming jobs of src/warming.ts, all of them or those named, until they are done. What is fresh is
left alone. After Ctrl-C the cron trigger goes on with the run, and so does the same command.

Options:
  --remote URL      the deployed API (http://127.0.0.1:8787)
  --concurrency N   items side by side, 1 to 20 (5)
  --restart         begins anew what is unfinished

An administrator's account is needed: the access token in GATEHOUSE_TOKEN, or its address and password in GATEHOUSE_EMAIL
and GATEHOUSE_PASSWORD. What is not set is asked for.

Exit code: 0 done; 1 it could not go on; 2 done, but some items could not be warmed; 130 stopped by Ctrl-C.
`;

const LOCAL = 'http://127.0.0.1:8787';

await runProgram(async () => {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      remote: { type: 'string', default: LOCAL },
      concurrency: { type: 'string', default: '5' },
      restart: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  const url = baseUrl(values.remote);
  if (!/^(?:[1-9]|1\d|20)$/.test(values.concurrency)) throw new UserError('--concurrency must be from 1 to 20.');

  const stopping = new AbortController();
  process.once('SIGINT', () => stopping.abort());
  const progress = progressOn(process.stdout);
  const notice = (line: string) => progress.note(line);
  let session: ApiSession | undefined;
  let started: string | undefined;
  try {
    const credentials = await findCredentials(stopping.signal);
    session = await openSession({ url, credentials, signal: stopping.signal, notice });
    const jobs = await jobsNamed(positionals, session, url);
    for (const job of jobs) {
      started = job.name;
      const query = `concurrency=${values.concurrency}`;
      const failed = await runJob(job, session, { query, restart: values.restart, progress, signal: stopping.signal });
      if (failed > 0) process.exitCode = 2;
    }
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
    for (const line of stoppedIn(started)) progress.note(line);
    process.exitCode = 130;
  } finally {
    await session?.close();
  }
});

/** @param job the one that Ctrl-C has stopped; `undefined` before the first */
function stoppedIn(job: string | undefined): string[] {
  if (job === undefined) return ['Stopped before the first job.'];
  return [
    `Stopped. The run of ${job} is unfinished: the cron trigger goes on with it each minute, and the same command at once.`,
    `"Stop" in the console (Warming), or DELETE /v1/admin/warming/${job}, ends it.`,
  ];
}

/** @throws {UserError} for what would send a token in the clear */
function baseUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol)) throw new UserError(`"${text}" is no URL of an API.`);
  const local = /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (url.protocol === 'http:' && !local) throw new UserError('A token is not sent without TLS: give an https URL.');
  return url.origin + url.pathname.replace(/\/$/, '');
}

/** Never from the command line: others on the machine can read that. */
async function findCredentials(signal: AbortSignal): Promise<Credentials> {
  const { GATEHOUSE_TOKEN: token, GATEHOUSE_EMAIL, GATEHOUSE_PASSWORD } = process.env;
  if (token !== undefined && token !== '') return { token };
  const email = GATEHOUSE_EMAIL ?? (await ask('E-mail address of an administrator: ', signal));
  const password = GATEHOUSE_PASSWORD ?? (await ask('Password: ', signal, true));
  return { email, password };
}

async function ask(question: string, signal: AbortSignal, hidden = false): Promise<string> {
  if (!process.stdin.isTTY) throw new UserError('Set GATEHOUSE_TOKEN, or GATEHOUSE_EMAIL and GATEHOUSE_PASSWORD.');
  // Receives readline's output: the question and the echo of the input.
  const echo = new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (!hidden) process.stderr.write(chunk);
      done();
    },
  });
  const lines = createInterface({ input: process.stdin, output: echo, terminal: true });
  lines.once('SIGINT', () => process.emit('SIGINT'));
  // Only now: from here on the terminal itself echoes nothing.
  if (hidden) process.stderr.write(question);
  try {
    return await lines.question(hidden ? '' : question, { signal });
  } finally {
    lines.close();
    if (hidden) process.stderr.write('\n');
  }
}

async function listJobs(session: ApiSession): Promise<Job[] | undefined> {
  const response = await session.call('GET', '/v1/admin/warming');
  return response?.body['jobs'] as Job[] | undefined;
}

async function jobsNamed(names: readonly string[], session: ApiSession, url: string): Promise<Job[]> {
  const jobs = await listJobs(session);
  if (jobs === undefined) throw new UserError(`${url} does not respond. Is it running (npm run dev)?`);
  if (names.length === 0) return jobs;
  return names.map((name) => {
    const job = jobs.find((candidate) => candidate.name === name);
    if (job === undefined) throw new UserError(`There is no job "${name}": ${jobs.map((one) => one.name).join(', ')}.`);
    return job;
  });
}

interface RunOptions {
  query: string;
  restart: boolean;
  progress: Progress;
  signal: AbortSignal;
}

/** Slice after slice. @returns how many items could not be warmed */
async function runJob(before: Job, session: ApiSession, { query, restart, progress, signal }: RunOptions) {
  const startMs = performance.now();
  const path = `/v1/admin/warming/${encodeURIComponent(before.name)}?${query}`;
  let begins = restart;
  for (let losses = 0; ;) {
    signal.throwIfAborted();
    const response = await session.call('POST', begins ? `${path}&restart=true` : path);
    if (response === undefined) losses += 1;
    else {
      losses = 0;
      begins = false;
    }
    const job = response === undefined ? await afterLoss(session, before, losses, signal) : jobOf(response);
    if (job === undefined) continue;
    const elapsedMs = performance.now() - startMs;
    progress.show(job, elapsedMs);
    if (job.state !== 'done') continue;
    const { done = 0, failed = 0 } = job;
    const faults = failed > 0 ? `, ${failed} failed (the Worker's log says why)` : '';
    progress.note(`${job.name}: ${done} warmed${faults}, ${(elapsedMs / 1_000).toFixed(1)} s`);
    return failed;
  }
}

function jobOf({ body }: ApiResponse): Job {
  // Of its shape the contract's tests make sure.
  return body as unknown as Job;
}

/** The slice whose response was lost may have been the last: asked again, the job would begin anew. */
async function afterLoss(session: ApiSession, before: Job, losses: number, signal: AbortSignal) {
  if (losses > 5) throw new UserError('The API does not respond any more. The same command goes on where it was.');
  await delay(Math.min(8_000, 500 * 2 ** losses), undefined, { signal });
  const job = (await listJobs(session))?.find(({ name }) => name === before.name);
  return job?.state === 'done' && (before.state === 'running' || job.startedAt !== before.startedAt) ? job : undefined;
}
