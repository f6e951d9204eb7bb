import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

import type { Locator, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { CHROMIUM_MISSING, hasChromium } from '../support/chromium.ts';
import { hasRedisServer, REDIS_MISSING } from '../support/redisServers.ts';
import { until } from '../node/faults/scene.ts';
import { seriousFindings, startStage } from './stage.ts';
import type { Person, Stage } from './stage.ts';

/** `SCREENSHOTS=1` renews the pictures of docs/console.md. */
const PICTURES = process.env['SCREENSHOTS'] === undefined ? undefined : new URL('../../docs/console/', import.meta.url);
const SECTIONS = ['Overview', 'Users', 'Limits', 'Cache', 'Warming', 'Keys', 'Settings', 'Audit'];

const canRun = hasChromium && hasRedisServer;
const why = canRun ? '' : `: ${hasChromium ? REDIS_MISSING : CHROMIUM_MISSING}`;

describe.skipIf(!canRun)(`the console in Chromium${why}`, () => {
  let stage: Stage;
  let grace: Person;
  let page: Page;

  beforeAll(async () => {
    stage = await startStage();
    grace = await stage.register('Grace Hopper');
    page = await stage.newPage();
  }, 120_000);
  afterAll(() => stage?.[Symbol.asyncDispose]());

  async function signIn(on: Page, { email, password }: Person = stage.admin): Promise<void> {
    await on.goto(`${stage.url}/console`);
    await on.getByLabel('E-mail address').fill(email);
    await on.getByLabel('Password').fill(password);
    await on.getByRole('button', { name: 'Sign in' }).click();
  }
  /** Waits until it is there. */
  const expectShown = (locator: Locator, timeout?: number) => locator.waitFor(timeout === undefined ? {} : { timeout });
  const open = async (on: Page, section: string) => {
    await on.getByRole('link', { name: section, exact: true }).click();
    await on.getByRole('heading', { level: 1, name: section }).waitFor();
    await on.getByText('Loading …').waitFor({ state: 'detached' });
  };
  const picture = async (on: Page, name: string) => {
    if (PICTURES === undefined) return;
    mkdirSync(PICTURES, { recursive: true });
    await on.screenshot({ path: fileURLToPath(new URL(`${name}.png`, PICTURES)) });
  };

  it('npm run dev prints its address, and how to become the first administrator', () => {
    expect(stage.screen).toContain(`${stage.url}/console`);
    expect(stage.screen).toContain('\nnpm run admin -- grant ada@example.com\n');
  });

  it('is at most 60 KB, with a policy that allows nothing of others', async () => {
    const response = await fetch(`${stage.url}/console`);
    expect(response.headers.get('Content-Security-Policy')).toMatch(
      /^default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self';/,
    );
    const html = await response.text();
    const files = [...html.matchAll(/(?:src|href)="(\/console\/[^"]+)"/g)].map(([, file = '']) => file);
    expect(files.toSorted((a, b) => a.localeCompare(b))).toEqual(['/console/console.css', '/console/console.js']);
    let bytes = gzipSync(html).length;
    for (const file of files) {
      bytes += gzipSync(Buffer.from(await (await fetch(`${stage.url}${file}`)).arrayBuffer())).length;
    }
    expect(bytes).toBeLessThanOrEqual(60 * 1_024);
  });

  it('hides the password that is typed, and takes one that is pasted or filled in by a password manager', async () => {
    await page.goto(`${stage.url}/console`);
    const field = page.getByLabel('Password');
    await expectShown(field);
    expect(await field.getAttribute('type')).toBe('password');
    expect(await field.getAttribute('autocomplete')).toBe('current-password');
    // Runs in the page. @returns whether the page has stopped the paste
    const isStopped = await field.evaluate(
      (element) => !element.dispatchEvent(new ClipboardEvent('paste', { bubbles: true, cancelable: true })),
    );
    expect(isStopped).toBe(false);
  });

  it('lets administrators in, and no other user', async () => {
    await signIn(page, { ...stage.admin, password: 'not this one' });
    await expectShown(page.getByText('The e-mail address or the password is wrong'));
    await signIn(page, grace);
    await expectShown(page.getByText('This account is no administrator’s'));
    expect(await seriousFindings(page)).toEqual([]);
    await signIn(page);
    await expectShown(page.getByRole('heading', { level: 1, name: 'Overview' }));
    // In memory only.
    const stored = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]);
    expect(stored).toEqual([0, 0, '']);
  });

  it('draws plots from live traffic', async () => {
    const traffic = stage.traffic(await stage.signIn(grace));
    try {
      await expectShown(page.getByText(/requests\/s, p95/), 30_000);
      const plot = page.getByRole('figure', { name: 'Requests a second' });
      await expectShown(plot.locator('canvas'));
      const coloured = () =>
        plot.locator('canvas').evaluate((canvas: HTMLCanvasElement) => {
          const { data } = canvas.getContext('2d')!.getImageData(0, 0, canvas.width, canvas.height);
          const accent = getComputedStyle(document.documentElement).getPropertyValue('--accent').trim();
          const [r, g, b] = [1, 3, 5].map((at) => Number.parseInt(accent.slice(at, at + 2), 16));
          let pixels = 0;
          for (let at = 0; at < data.length; at += 4) {
            if (data[at] === r && data[at + 1] === g && data[at + 2] === b && data[at + 3] === 255) pixels += 1;
          }
          return pixels;
        });
      await until('the line is drawn', async () => (await coloured()) > 10, { everyMs: 250 });
      await expectShown(page.getByRole('region', { name: 'Routes' }).getByText('GET /v1/users/me'));
      await picture(page, 'overview');
    } finally {
      await traffic.stop();
    }
  });

  it('names an outage within ten seconds, and its end', async () => {
    const traffic = stage.traffic(await stage.signIn(grace));
    try {
      await stage.redis.kill();
      await expectShown(page.getByText('Redis is away'), 10_000);
      await picture(page, 'outage');
      await stage.redis.restart();
      await page.getByText('Redis is away').waitFor({ state: 'detached', timeout: 240_000 });
    } finally {
      await traffic.stop();
    }
  });

  it('ends a session', async () => {
    const token = await stage.signIn(grace);
    await open(page, 'Users');
    await page.getByRole('searchbox').fill('hopper');
    await page.getByRole('link', { name: 'Grace Hopper' }).click();
    await expectShown(page.getByRole('heading', { level: 1, name: 'Grace Hopper' }));
    const devices = page.getByRole('region', { name: 'Devices' });
    await picture(page, 'user');
    // The newest stands first.
    await devices.getByRole('button', { name: 'End the session of Tablet' }).first().click();
    await page.getByRole('button', { name: 'End session' }).click();
    await expectShown(page.getByText('The session has ended.'));
    expect(await stage.call('GET', '/v1/users/me', { token })).toMatchObject({
      status: 401,
      body: { code: 'TOKEN_REVOKED' },
    });
    await expectShown(devices.getByText('ended by an administrator'));
  });

  it('overrides a limit, shows a counter, and resets it', async () => {
    const token = await stage.signIn(grace);
    const statuses = async () => {
      const seen: number[] = [];
      for (let time = 0; time < 3; time += 1) seen.push((await stage.call('GET', '/v1/users/me', { token })).status);
      return seen;
    };
    await open(page, 'Limits');
    await page.locator('select').first().selectOption('api');
    await page.getByLabel('E-mail address, user id or IP address').fill(grace.email);
    await page.getByRole('button', { name: 'Look' }).click();
    await page.getByRole('button', { name: 'Reset' }).click();
    await expectShown(page.getByText('The counter is reset.'));

    await page.getByRole('button', { name: 'Override api', exact: true }).click();
    await page.getByLabel('Requests').fill('2');
    await page.getByRole('button', { name: 'Set', exact: true }).click();
    await expectShown(page.getByText('api: 2 in 15 min'));
    expect(await statuses()).toEqual([200, 200, 429]);
    await expectShown(page.getByText('overridden'));
    // What an isolate counts while Redis is late for it reaches Redis after the response.
    await until('Redis has counted both', async () => {
      await page.getByRole('button', { name: 'Look' }).click();
      const used = page.getByText(/\d of 2 in 15 min used/).first();
      await used.waitFor();
      return (await used.textContent())?.includes('2 of 2') === true;
    });
    await picture(page, 'limits');
    await page.getByRole('button', { name: 'Restore api' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Restore' }).click();
    await expectShown(page.getByText('api is restored.'));
    await until('the limit is the app’s own again', async () => (await statuses()).every((status) => status === 200));
    // A mistyped identity is an error.
    await page.getByLabel('E-mail address, user id or IP address').fill('nobody@example.com');
    await page.getByRole('button', { name: 'Look' }).click();
    await expectShown(page.getByText('is the e-mail address of no account'));
  });

  it('shows the newest search, whichever response comes last', async () => {
    await open(page, 'Users');
    const asked: string[] = [];
    const held = Promise.withResolvers<void>();
    await page.route('**/v1/users?*', async (route) => {
      const q = new URL(route.request().url()).searchParams.get('q') ?? '';
      asked.push(q);
      if (q !== 'hopper') await held.promise;
      await route.continue();
    });
    // Two searches within one frame, as when a machine is busy: the former is not sent at all.
    await page.evaluate(async () => {
      const frame = globalThis.requestAnimationFrame;
      const waiting: FrameRequestCallback[] = [];
      const cancelled = new Set<number>();
      const { cancelAnimationFrame: cancel } = globalThis;
      globalThis.requestAnimationFrame = (callback) => -waiting.push(callback);
      globalThis.cancelAnimationFrame = (id) => (id < 0 ? cancelled.add(-id) : cancel(id));
      for (const q of ['lovelace', 'hopper']) {
        const changed = new Promise((resolve) => addEventListener('hashchange', resolve, { once: true }));
        location.hash = `#/users?q=${q}`;
        await changed;
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
      Object.assign(globalThis, { requestAnimationFrame: frame, cancelAnimationFrame: cancel });
      for (const [at, callback] of waiting.entries()) if (!cancelled.has(at + 1)) callback(performance.now());
    });
    await expectShown(page.getByText('1–1 of 1'));
    await expectShown(page.getByRole('link', { name: 'Grace Hopper' }));
    expect(asked).toEqual(['hopper']);
    await expect(page.getByRole('searchbox').inputValue()).resolves.toBe('hopper');
    // The response of an earlier search that comes last.
    const late = page.waitForResponse((response) => response.url().includes('lovelace'));
    await page.getByRole('searchbox').fill('lovelace');
    await until('the search is sent', () => asked.includes('lovelace'));
    await page.getByRole('searchbox').fill('hopper');
    await expectShown(page.getByRole('link', { name: 'Grace Hopper' }));
    held.resolve();
    await (await late).finished();
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 50)));
    await expectShown(page.getByRole('link', { name: 'Grace Hopper' }));
    await page.unrouteAll();
    // The page follows the browser's history, and the section's own link.
    await page.getByRole('link', { name: 'Users', exact: true }).click();
    await expectShown(page.getByRole('link', { name: 'Ada Lovelace' }));
    await expect(page.getByRole('searchbox').inputValue()).resolves.toBe('');
  });

  it('pages through 10,000 accounts', async () => {
    stage.sql(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
      INSERT INTO users (id, email, name, password_hash, created_at_ms, updated_at_ms)
      SELECT 'many-' || i, 'many' || i || '@example.com', 'One of many ' || i, '', 9e11 + i, 1 FROM n`);
    // Behind the app's back: what is cached of the list does not know.
    await open(page, 'Cache');
    await page.getByLabel('Names, separated by commas').fill('users, users-found');
    await page.getByRole('button', { name: 'Invalidate' }).first().click();
    await page.getByRole('dialog').getByRole('button', { name: 'Invalidate' }).click();
    await expectShown(page.getByText('Invalidated.'));
    await open(page, 'Users');
    await expectShown(page.getByText('1–50 of 10,002'));
    await page.getByRole('button', { name: 'Next' }).click();
    await expectShown(page.getByText('51–100 of 10,002'));
    await page.getByRole('button', { name: 'Last' }).click();
    await expectShown(page.getByText('10,001–10,002 of 10,002'));
    await expectShown(page.getByRole('link', { name: 'Grace Hopper' }));
    await page.getByRole('searchbox').fill('no such person');
    await expectShown(page.getByText('No account has “no such person”'));
  });

  it('says when there is no connection, and goes on when there is', async () => {
    await open(page, 'Overview');
    await page.context().setOffline(true);
    await expectShown(page.getByText(/^No connection to the server since/));
    await page.context().setOffline(false);
    await page.getByText(/^No connection to the server since/).waitFor({ state: 'detached' });
  });

  it('is used by keyboard alone', async () => {
    const keys = await stage.newPage();
    await keys.goto(`${stage.url}/console`);
    await expectShown(keys.getByRole('heading', { name: 'Sign in' }));
    const tabTo = async (name: string | RegExp) => {
      for (let time = 0; time < 60; time += 1) {
        const focused = await keys.evaluate(() => {
          const element = document.activeElement;
          const label = element instanceof HTMLInputElement ? element.labels?.[0]?.textContent : element?.textContent;
          return (label ?? '').trim();
        });
        if (typeof name === 'string' ? focused === name : name.test(focused)) return;
        await keys.keyboard.press('Tab');
      }
      throw new Error(`no way to ${String(name)} by Tab`);
    };
    await tabTo('E-mail address');
    await keys.keyboard.type(stage.admin.email);
    await tabTo('Password');
    await keys.keyboard.type(stage.admin.password);
    await keys.keyboard.press('Enter');
    await expectShown(keys.getByRole('heading', { level: 1, name: 'Overview' }));
    await tabTo('Users');
    await keys.keyboard.press('Enter');
    await expectShown(keys.getByRole('heading', { level: 1, name: 'Users' }));
    await tabTo('Search by name or e-mail address');
    await keys.keyboard.type('hopper');
    await expectShown(keys.getByText('1–1 of 1'));
    await tabTo('Grace Hopper');
    await keys.keyboard.press('Enter');
    await expectShown(keys.getByRole('heading', { level: 1, name: 'Grace Hopper' }));
    await tabTo('End all sessions');
    await keys.keyboard.press('Enter');
    await expectShown(keys.getByRole('dialog'));
    // Escape answers no.
    await keys.keyboard.press('Escape');
    await keys.getByRole('dialog').waitFor({ state: 'detached' });
    await tabTo('End all sessions');
    await keys.keyboard.press('Enter');
    await expectShown(keys.getByRole('dialog'));
    await keys.keyboard.press('Tab');
    await keys.keyboard.press('Enter');
    await expectShown(keys.getByText('All sessions have ended.'));
    await keys.context().close();
  });

  it.each(['light', 'dark'] as const)('has no serious finding of axe-core in any section, %s', async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    for (const section of SECTIONS) {
      await open(page, section);
      expect({ section, findings: await seriousFindings(page) }).toEqual({ section, findings: [] });
    }
    const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const brightness = (/\d+/.exec(background) ?? [''])[0];
    expect(Number(brightness) < 128).toBe(colorScheme === 'dark');
    await open(page, 'Overview');
    await expectShown(page.locator('canvas').first());
    if (colorScheme === 'dark') await picture(page, 'dark');
  });

  it('fits on 360 px', async () => {
    await page.emulateMedia({ colorScheme: 'light' });
    await page.setViewportSize({ width: 360, height: 740 });
    for (const section of SECTIONS) {
      await open(page, section);
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      expect({ section, width }).toEqual({ section, width: 360 });
    }
    await open(page, 'Overview');
    await expectShown(page.locator('canvas').first());
    await picture(page, 'narrow');
  });

  it('says why the session has ended when another administrator ends it', async () => {
    const other = await stage.signIn(stage.admin);
    await stage.call('DELETE', `/v1/admin/users/${stage.admin.id}/sessions`, { token: other });
    await page.getByRole('link', { name: 'Users', exact: true }).click();
    await expectShown(page.getByText('Your session was ended. Sign in again.'));
  });

  it('signs out, and the session ends', async () => {
    await signIn(page);
    const ended = page.waitForResponse((response) => /\/v1\/auth\/(logout|revoke)$/.test(response.url()));
    await page.getByRole('button', { name: 'Sign out' }).click();
    expect((await ended).ok()).toBe(true);
    await expectShown(page.getByLabel('Password'));
  });

  it('has sent no request to another origin, and no script has failed', () => {
    expect(stage.faults).toEqual([]);
  });
});
