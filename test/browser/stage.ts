import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';

import { chromium } from 'playwright-core';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';

import { CHROMIUM } from '../support/chromium.ts';
import { clientOf } from '../support/client.ts';
import type { Call } from '../support/client.ts';
import { startRedis } from '../support/redisServers.ts';
import type { RedisProcess } from '../support/redisServers.ts';
import { copyProject, freePort, migrated, runScript, startScript } from '../node/scripts/project.ts';
import { until } from '../node/faults/scene.ts';

export interface Person {
  id: string;
  email: string;
  password: string;
}

/** `npm run dev` in front of a Redis of its own, and a browser. */
export interface Stage extends AsyncDisposable {
  url: string;
  /** What `npm run dev` has printed. */
  screen: string;
  redis: RedisProcess;
  call: Call;
  admin: Person;
  register(name: string): Promise<Person>;
  signIn(person: Person): Promise<string>;
  sql(statement: string): void;
  /** A page of a browser that has no cookies and no storage. Everything that goes wrong in it is noted in `faults`. */
  newPage(options?: BrowserContextOptions): Promise<Page>;
  /** Requests to other origins, errors of scripts, and violations of the page's policy. */
  faults: string[];
  /** Sends reads of one user, until it is stopped. */
  traffic(token: string): { stop(): Promise<void> };
}

/** Cheap hashes, and limits that a test does not meet by accident. */
const SETTINGS = `SCRYPT_LN=10
SCRYPT_P=1
LIMIT_REGISTER=1000/1m
LIMIT_LOGIN=1000/1m
LIMIT_API=100000/15m
`;

export async function startStage(): Promise<Stage> {
  const redis = await startRedis();
  const project = await migrated(copyProject());
  writeFileSync(join(project.root, '.dev.vars'), SETTINGS, { mode: 0o600 });
  const [port, gatewayPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const env = { PORT: String(port), GATEWAY_PORT: String(gatewayPort), REDIS_URL: redis.url };
  const dev = startScript(project.root, 'dev', [], { env, timeoutMs: 900_000 });
  const isUp = () => dev.output.stdout.includes('Ctrl-C') || dev.child.exitCode !== null;
  await until('npm run dev is up', isUp);
  if (dev.child.exitCode !== null) throw new Error(dev.output.stderr);
  const screen = dev.output.stdout;

  const call = clientOf(url);
  const register = async (name: string): Promise<Person> => {
    const person = {
      email: `${name.toLowerCase().replaceAll(' ', '.')}@example.com`,
      password: 'correct horse battery',
    };
    const { status, body } = await call('POST', '/v1/auth/register', { body: { ...person, name, device: 'Phone' } });
    if (status !== 201) throw new Error(`not registered: ${status} ${JSON.stringify(body)}`);
    return { ...person, id: (body as { user: { id: string } }).user.id };
  };
  const admin = await register('Ada Lovelace');
  const granted = await runScript(project.root, 'admin', ['grant', admin.email]);
  if (granted.code !== 0) throw new Error(granted.stderr);

  const faults: string[] = [];
  const browser: Browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  });

  return {
    url,
    screen,
    redis,
    call,
    admin,
    register,
    faults,
    async signIn({ email, password }) {
      const { body } = await call('POST', '/v1/auth/login', { body: { email, password, device: 'Tablet' } });
      return (body as { access_token: string }).access_token;
    },
    sql(statement) {
      const directory = join(project.root, '.wrangler/state/v3/d1/miniflare-D1DatabaseObject');
      const name = readdirSync(directory).find((file) => file.endsWith('.sqlite') && file !== 'metadata.sqlite');
      using database = new DatabaseSync(join(directory, name!), { timeout: 5_000 });
      database.exec(statement);
    },
    async newPage(options = {}) {
      const context = await browser.newContext({ viewport: { width: 1120, height: 720 }, ...options });
      const page = await context.newPage();
      page.setDefaultTimeout(60_000);
      page.on('request', (request) => {
        if (!request.url().startsWith(url) && !request.url().startsWith('data:')) faults.push(`asked ${request.url()}`);
      });
      page.on('pageerror', (error) => faults.push(error.message));
      page.on('console', (message) => {
        // Refusals and outages are reported here, too, and are what the tests cause.
        if (message.type() === 'error' && !message.text().startsWith('Failed to load resource'))
          faults.push(message.text());
      });
      return page;
    },
    traffic(token) {
      const stop = new AbortController();
      const run = async () => {
        while (!stop.signal.aborted) {
          await call('GET', '/v1/users/me', { token }).catch(() => undefined);
          await new Promise((resolve) => setTimeout(resolve, 40));
        }
      };
      const runs = [run(), run()];
      return {
        async stop() {
          stop.abort();
          await Promise.all(runs);
        },
      };
    },
    async [Symbol.asyncDispose]() {
      await browser.close();
      dev.child.kill('SIGTERM');
      await dev.ended;
      project[Symbol.dispose]();
      await redis.stop();
    },
  };
}

const axe = readFileSync(new URL(import.meta.resolve('axe-core/axe.min.js')), 'utf8');

/** What axe-core finds on a page that is serious or worse: the rule, and where. */
export async function seriousFindings(page: Page): Promise<string[]> {
  // Evaluated, not added to the page: its policy allows no script of others.
  await page.evaluate(axe);
  return page.evaluate(async () => {
    const { axe: run } = globalThis as unknown as {
      axe: {
        run(): Promise<{
          violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[];
        }>;
      };
    };
    const { violations } = await run.run();
    return violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`));
  });
}
