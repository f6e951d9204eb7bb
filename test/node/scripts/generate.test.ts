import { cpSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { copyProject, runScript } from './project.ts';
import type { Project } from './project.ts';

const FOLDERS = ['src/db/migrations', 'src/db/postgres/migrations'] as const;
const SCHEMA = 'src/db/schema.ts';
/** What stands behind the last table of Gatehouse. */
const END = 'export type UserRow =';

const read = (project: Project, path: string) => readFileSync(join(project.root, path), 'utf8');
const filesOf = (project: Project) =>
  FOLDERS.map((folder) => readdirSync(join(project.root, folder)).filter((file) => file.endsWith('.sql')));
const tableOf = (name: string, ...columns: string[]) =>
  `export const ${name} = table('${name}', { id: text('id').primaryKey(), ${columns.map((column) => `${column}: text('${column}')`).join(', ')} });\n\n`;

const schema = (project: Project, tables: string) =>
  writeFileSync(
    join(project.root, SCHEMA),
    read(project, SCHEMA).replace(new RegExp(`(?:export const (?:badges|notes) .*\\n\\n)*${END}`), `${tables}${END}`),
  );

async function generate(project: Project, ...args: string[]): Promise<string[][]> {
  const before = filesOf(project);
  expect(await runScript(project.root, 'generate', args)).toMatchObject({ code: 0 });
  return filesOf(project).map((files, at) => files.filter((file) => !before[at]?.includes(file)));
}

test('after a merge the tables of an app are generated once more, and then nothing, however many migrations it has', async () => {
  using newer = copyProject();
  schema(newer, tableOf('badges', 'colour'));
  await generate(newer, '--name', 'badges');

  using app = copyProject();
  for (const columns of [['text'], ['text', 'price'], ['text', 'price', 'unit']]) {
    schema(app, tableOf('notes', ...columns));
    await generate(app, '--name', `notes_${columns.length}`);
  }

  // As docs/routes.md says: both SQL files stay, and the journal and the snapshots of one number are Gatehouse's.
  for (const folder of FOLDERS) cpSync(join(newer.root, folder), join(app.root, folder), { recursive: true });
  schema(app, tableOf('notes', 'text', 'price', 'unit') + tableOf('badges', 'colour'));

  const made = await generate(app, '--name', 'merged');
  for (const [at, folder] of FOLDERS.entries()) {
    expect(made[at]).toEqual([expect.stringMatching(/^\d{4}_merged\.sql$/)]);
    const sql = read(app, `${folder}/${made[at]?.[0]}`);
    expect(sql.match(/(?:CREATE|ALTER|DROP) TABLE [`"]\w+[`"]/g)).toEqual([
      expect.stringMatching(/^CREATE TABLE .notes.$/),
    ]);
    expect(sql).toMatch(/[`"]unit[`"]/);
  }
  expect(await generate(app)).toEqual([[], []]);
});
