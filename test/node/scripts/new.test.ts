import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ROOT, copyProject, runScript } from './project.ts';
import type { Project } from './project.ts';

describe('npm run new', () => {
  let project: Project;
  const read = (path: string) => readFileSync(join(project.root, path), 'utf8');
  const make = (...args: string[]) => runScript(project.root, 'new', args);

  beforeAll(() => {
    project = copyProject();
    for (const name of ['test/worker/examples', 'test/node/contract/requests.ts', '.oxfmtrc.json'])
      cpSync(join(ROOT, name), join(project.root, name), { recursive: true });
  });
  afterAll(() => project[Symbol.dispose]());

  it('makes tables, migrations, routes, tests and a contract that compile, one after the other', async () => {
    for (const [name, ...options] of [['shoppingLists'], ['tasks'], ['history', '--as-is']] as const) {
      const { code, stderr, stdout } = await make(name, ...options);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(
        new RegExp(`^Made src/routes/${name}\\.routes\\.ts, .* Changed src/db/schema\\.ts, src/app\\.ts, `),
      );
    }

    const migration = readdirSync(join(project.root, 'src/db/migrations')).find((file) =>
      file.includes('shopping_lists'),
    );
    expect(read(`src/db/migrations/${migration}`)).toContain('CREATE TABLE `shopping_lists`');
    const folder = 'src/db/postgres/migrations';
    const postgres = readdirSync(join(project.root, folder)).find((file) => file.endsWith('shopping_lists.sql'));
    const texts = read(`${folder}/${postgres}`).match(/"\w+" text.*/g) ?? [];
    expect(texts.length).toBeGreaterThan(0);
    for (const text of texts) expect(text).toContain('text COLLATE "C"');
    expect(read('src/app.ts')).toContain(".route('/v1/shopping-lists', shoppingListsRoutes)");
    expect(read('src/personalData.ts')).toContain("ownedBy('shoppingLists', shoppingLists)");
    const { paths } = JSON.parse(read('docs/openapi.json')) as { paths: Record<string, Record<string, unknown>> };
    expect(Object.keys(paths['/v1/shopping-lists'] ?? {})).toEqual(['get', 'post']);
    expect(paths['/v1/tasks/{id}']).toMatchObject({
      delete: { responses: { 204: {}, 404: {} } },
      get: { security: [{ accessToken: [] }], responses: { 200: {}, 401: {}, 404: {}, 429: {} } },
    });
    // The test is that of the example, for an app that has the routes and the table.
    const made = read('test/worker/routes/tasks.test.ts');
    expect(made).toContain('const app = createApp({ isolate: isolateFor(bound) });');
    expect(made).not.toMatch(/CREATE TABLE|notes/);
    expect(read('src/routes/tasks.routes.ts')).not.toContain('notes');
    execFileSync(join(ROOT, 'node_modules/.bin/tsc'), ['-p', join(project.root, 'tsconfig.json')], {
      stdio: 'inherit',
    });
    // The whole of `npm run check` would take minutes.
    execFileSync(join(ROOT, 'node_modules/.bin/oxfmt'), ['--check'], { cwd: project.root, stdio: 'pipe' });
  });

  it.each([
    ['Notes', ': write notes'],
    ['my-notes', ': write myNotes'],
    ['../notes', 'must be 2 to 30 letters'],
    ['users', 'already'],
    ['outbox', 'npm run new -- outboxes, or npm run new -- outbox --as-is'],
    ['note', 'npm run new -- notes, or npm run new -- note --as-is'],
    ['diary', 'npm run new -- diaries, or'],
    ['address', 'npm run new -- addresses, or'],
    ['n', 'must be 2 to 30 letters'],
  ])('refuses the name %s with a hint, and changes nothing', async (name, hint) => {
    const before = read('src/db/schema.ts');
    const { code, stderr } = await make(name);
    expect(code).toBe(1);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).toContain(hint);
    expect(read('src/db/schema.ts')).toBe(before);
    expect(existsSync(join(project.root, `src/routes/contract/${name}.ts`))).toBe(false);
  });

  it('refuses the name of a table that is there, as it is too', async () => {
    expect(await make('outbox', '--as-is')).toMatchObject({ code: 1, stderr: expect.stringContaining('already') });
  });
});
