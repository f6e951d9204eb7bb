import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';

import { ROOT, UserError, runProgram } from './cli.ts';

const HELP = `npm run new -- NAME [--as-is]

Makes a table of rows that belong to users, with routes to list, create, show, change and delete them, and a test. NAME is the
plural, such as "notes" or "shoppingLists"; with --as-is it may be any other word, such as "history". The files are those of test/worker/examples/notes.*, under the new name:

  src/db/schema.ts              the table (change its columns as you like)
  src/db/migrations             its migrations, for D1 and PostgreSQL
  src/personalData.ts           the rows are deleted and exported with the account
  src/routes/NAME.routes.ts     the routes, mounted in src/app.ts
  test/worker/routes/NAME.test.ts, test/node/contract/requests.ts
  src/routes/contract/NAME.ts   what the contract says of them; docs/openapi.json is made again
`;

await runProgram(async () => {
  const { values, positionals } = parseArgs({
    options: { help: { type: 'boolean', short: 'h' }, 'as-is': { type: 'boolean' } },
    allowPositionals: true,
  });
  const [name, ...others] = positionals;
  if (values.help || name === undefined || others.length > 0) {
    process.stdout.write(HELP);
    if (!values.help) process.exitCode = 1;
    return;
  }
  make(name, values['as-is'] === true);
});

/** The regular plural of an English word, which is all that a hint needs. */
function pluralOf(word: string): string {
  if (/[^aeiou]y$/.test(word)) return `${word.slice(0, -1)}ies`;
  return `${word}${/(?:s|x|z|ch|sh)$/.test(word) ? 'es' : 's'}`;
}

function make(name: string, asIs: boolean): void {
  if (!/^[a-z][a-zA-Z]{1,29}$/.test(name)) {
    const camel = name.replaceAll(/[-_]+([a-z]?)/g, (_, letter: string) => letter.toUpperCase());
    const proposed = `${camel[0]?.toLowerCase()}${camel.slice(1)}`;
    const hint = /^[a-z][a-zA-Z]{1,29}$/.test(proposed) ? `: write ${proposed}` : '';
    throw new UserError(`NAME must be 2 to 30 letters, the first a small one${hint}`);
  }
  // Table, routes and files take the name as it stands, and the rows are many.
  if (!asIs && !/[^s]s$/.test(name)) {
    throw new UserError(
      `${name} does not look like a plural: npm run new -- ${pluralOf(name)}, or npm run new -- ${name} --as-is`,
    );
  }
  const slug = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  const renamed = (text: string) =>
    text
      .replaceAll("table(\n  'notes'", `table(\n  '${slug.replaceAll('-', '_')}'`)
      .replaceAll("'notes_user'", `'${slug.replaceAll('-', '_')}_user'`)
      .replaceAll('/v1/notes', `/v1/${slug}`)
      .replaceAll(/\bnotesRoutes\b/g, `${name}Routes`)
      .replaceAll('Notes of users', `${name[0]?.toUpperCase()}${name.slice(1)} of users`)
      .replaceAll(/\bnotes\b/g, name);
  const routesFile = `src/routes/${name}.routes.ts`;
  const testFile = `test/worker/routes/${name}.test.ts`;
  const contractFile = `src/routes/contract/${name}.ts`;
  const schema = read('src/db/schema.ts');
  const app = read('src/app.ts');
  if (existsSync(join(ROOT, routesFile)) || existsSync(join(ROOT, testFile)) || app.includes(`'/v1/${slug}'`)) {
    throw new UserError(`There are routes of that name already: ${routesFile}`);
  }
  if (
    new RegExp(`export (?:const|type) ${name}\\b`).test(schema) ||
    schema.includes(`'${slug.replaceAll('-', '_')}'`)
  ) {
    throw new UserError(`src/db/schema.ts has a table of that name already: ${name}`);
  }

  const table = renamed(read('test/worker/examples/notes.table.ts')).replace(/^import .*\n\n/, '');
  const routes = renamed(read('test/worker/examples/notes.routes.ts'))
    .replaceAll('../../../src/routes/', './')
    .replaceAll('../../../src/', '../')
    .replace(`./${name}.table`, '../db/schema');
  const test = renamed(read('test/worker/examples/notes.test.ts'))
    // The app has the routes, and the migrations the table.
    .replace(`import { ${name}Routes } from './${name}.routes';\n`, '')
    .replace(`.route('/v1/${slug}', ${name}Routes)`, '')
    .replace(/ {2}await bound\.DB\.exec\([^;]*\);\n/, '');
  const contract = renamed(read('test/worker/examples/notes.contract.ts')).replace(
    '../../../src/routes/contract/',
    './',
  );
  const mounted = insert(
    app,
    /(?<=\.route\('\/v1\/users', userRoutes\)\n)/,
    `    .route('/v1/${slug}', ${name}Routes)\n`,
  );
  const personal = read('src/personalData.ts');
  const entry = `ownedBy('${name}', ${name})`;

  write('src/db/schema.ts', insert(schema, /(?=\nexport type UserRow\b)/, `\n${table}`));
  write(routesFile, routes);
  write(testFile, test);
  write(contractFile, contract);
  write(
    'src/routes/contract/index.ts',
    insert(read('src/routes/contract/index.ts'), /(?<=import '\.\/adminDetails';\n)/, `import './${name}';\n`),
  );
  write(
    'src/app.ts',
    insert(
      mounted,
      /(?<=import \{ \w+ \} from '\.\/routes\/[^']*';\n)(?!import .*\/routes\/)/,
      `import { ${name}Routes } from './routes/${name}.routes';\n`,
    ),
  );
  write(
    'src/personalData.ts',
    insert(
      /from '\.\/db\/schema'/.test(personal)
        ? personal.replace(/import \{ (.*) \} from '\.\/db\/schema'/, `import { $1, ${name} } from './db/schema'`)
        : insert(personal, /(?<=from '\.\/db\/client';\n)/, `import { ${name} } from './db/schema';\n`),
      /(?<=personalTables: PersonalTable\[\] = \[)/,
      `\n  ${entry},`,
    ),
  );
  const requests = 'test/node/contract/requests.ts';
  write(
    requests,
    insert(
      read(requests),
      /(?<=const OWN_ROWS: Readonly<Record<string, object>> = \{)/,
      `\n  '/v1/${slug}': { text: 'first' },`,
    ),
  );
  const made = [routesFile, contractFile, testFile];
  const changed = ['src/db/schema.ts', 'src/app.ts', 'src/personalData.ts', 'src/routes/contract/index.ts', requests];
  run('oxfmt', [...made, ...changed]);
  run('node', ['src/scripts/generate.ts', '--name', slug.replaceAll('-', '_')]);
  run('node', ['src/scripts/openapi.ts']);
  process.stdout.write(
    `Made ${made.join(', ')} and the migrations. Changed ${changed.join(', ')} and the generated contract.\n` +
      `The routes are /v1/${slug}.\n\n` +
      `npm test -- ${testFile}    tests it\nnpm run check    before you commit\n` +
      `npm run dev    applies the migration; with other columns, change the table and npm run db:generate -- --name NAME\n`,
  );
}

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

function write(path: string, text: string): void {
  mkdirSync(dirname(join(ROOT, path)), { recursive: true });
  writeFileSync(join(ROOT, path), text);
}

/** Puts `added` at the place that `at` matches. */
function insert(text: string, at: RegExp, added: string): string {
  if (!at.test(text)) throw new UserError(`A place to insert this was not found: ${added.trim().split('\n')[0]}`);
  return text.replace(at, () => added);
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr, stdout } = spawnSync(join(ROOT, 'node_modules/.bin', program), args, {
    cwd: ROOT,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new UserError(`${program} failed: ${(stderr || stdout).trim()}`);
}
