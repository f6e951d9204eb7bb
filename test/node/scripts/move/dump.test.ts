import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { loadDump, repairTexts, statementsOf } from '../../../../src/scripts/move/dump.ts';
import { fileAt } from '../../../../src/scripts/move/live.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gatehouse-dump-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const TABLE = 'CREATE TABLE `notes` (`id` integer PRIMARY KEY AUTOINCREMENT, `text` text, `n` integer)';
const rowsOf = (path: string) => {
  using database = new DatabaseSync(path, { readOnly: true });
  return database.prepare('select * from notes order by id').all();
};

describe('a dump of D1', () => {
  it('is taken apart at semicolons outside of quotes, wherever its chunks end', async () => {
    const text = `PRAGMA x;\nINSERT INTO "a;b" VALUES('it''s; "x"',NULL);\nINSERT INTO t VALUES(';'';');`;
    const expected = ['PRAGMA x', `INSERT INTO "a;b" VALUES('it''s; "x"',NULL)`, `INSERT INTO t VALUES(';'';')`];
    for (let size = 1; size <= text.length; size += 1) {
      const parts = async function* () {
        for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size);
      };
      const found: string[] = [];
      for await (const statement of statementsOf(parts())) found.push(statement);
      expect(found).toEqual(expected);
    }
  });

  it('is loaded with the numbers that were given, and texts that the export has altered are repaired', async () => {
    const [source, dump, copy] = ['d1.sqlite', 'dump.sql', 'copy.sqlite'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const texts = [`it's; "x"`, 'one\ntwo', 'back\\nslash\nand line', 'cr\\r\r\n', '\\n', null];
    {
      using database = new DatabaseSync(source);
      database.exec(TABLE);
      const insert = database.prepare('insert into notes (text, n) values (?, ?)');
      texts.forEach((text, index) => insert.run(text, index % 2 === 0 ? 2 ** 53 - 1 : -5));
      database.exec('insert into notes (id) values (900); delete from notes where id = 900');
    }
    // As `wrangler d1 export --no-schema` of wrangler 4 writes it.
    const literal = (text: string | null) => {
      if (text === null) return 'NULL';
      const plain = `'${text.replaceAll("'", "''").replaceAll('\n', '\\n').replaceAll('\r', '\\r')}'`;
      const lines = text.includes('\n') ? `replace(${plain},'\\n',char(10))` : plain;
      return text.includes('\r') ? `replace(${lines},'\\r',char(13))` : lines;
    };
    const inserts = rowsOf(source).map(
      ({ id, text, n }) =>
        `INSERT INTO "notes" ("id","text","n") VALUES(${Number(id)},${literal(text as string | null)},${Number(n)});`,
    );
    writeFileSync(
      dump,
      [
        'PRAGMA defer_foreign_keys=TRUE;',
        ...inserts,
        `INSERT INTO "sqlite_sequence" ("name","seq") VALUES('notes',900);`,
      ].join('\n'),
    );

    await loadDump(dump, copy, { tables: [TABLE], numbers: [{ name: 'notes', seq: 900 }] });
    // Otherwise there is nothing to repair.
    expect(rowsOf(copy)).not.toEqual(rowsOf(source));
    await repairTexts(copy, (statements) => fileAt(source).query(statements));
    expect(rowsOf(copy)).toEqual(rowsOf(source));
    expect(await fileAt(copy).query(['select seq from sqlite_sequence'])).toEqual([[{ seq: 900 }]]);
  });
});
