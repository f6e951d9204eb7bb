import { DatabaseSync } from 'node:sqlite';
import { createInterface } from 'node:readline';

import { createClient } from '../../src/client/index.ts';
import type { SessionStorage } from '../../src/client/index.ts';

/**
 * An app in a process of its own, on a storage that it shares with others. Does what its standard input says, one command a
 * line, and prints one line of JSON for each.
 *
 * node test/support/clientProcess.ts URL FILE ADDRESS [before-store]
 */
const [, , baseUrl = '', file = '', address = '', pauseBeforeStore] = process.argv;

/** A session in SQLite, whose statements are atomic among processes. */
function sqliteStorage(path: string): SessionStorage {
  const db = new DatabaseSync(path, { timeout: 10_000 });
  db.exec('CREATE TABLE IF NOT EXISTS session (id INTEGER PRIMARY KEY CHECK (id = 1), value TEXT)');
  db.exec('INSERT OR IGNORE INTO session VALUES (1, NULL)');
  const reading = db.prepare('SELECT value FROM session');
  const writing = db.prepare('UPDATE session SET value = ?');
  const replacing = db.prepare('UPDATE session SET value = ? WHERE value IS ?');
  return {
    read: () => (reading.get() as { value: string | null }).value,
    write: (value) => void writing.run(value),
    async replace(expected, value) {
      if (pauseBeforeStore !== undefined) {
        // Until it is killed: the server has responded, and nothing is stored.
        report({ at: 'before-store' });
        await new Promise(() => setInterval(() => undefined, 1_000));
      }
      return replacing.run(value, expected).changes === 1;
    },
  };
}

const report = (line: unknown) => process.stdout.write(`${JSON.stringify(line)}\n`);

let nowMs = 0;
let refreshes = 0;
const client = createClient({
  baseUrl,
  storage: sqliteStorage(file),
  monotonicNow: () => nowMs + performance.now(),
  async fetch(input, init) {
    const headers = new Headers(init?.headers);
    headers.set('CF-Connecting-IP', address);
    const response = await fetch(input, { ...init, headers });
    // As Cloudflare adds it.
    const dated = new Headers(response.headers);
    dated.set('Date', new Date().toUTCString());
    return new Response(response.body, { status: response.status, headers: dated });
  },
});
const events: string[] = [];
client.on('tokenRefreshed', () => (refreshes += 1));
client.on('signedOut', ({ reason }) => events.push(reason));

/** Calls the API with an access token that is about to expire, so often. */
async function refreshAndCall(times: number): Promise<object> {
  const ids = new Set<string>();
  for (let round = 0; round < times; round += 1) {
    nowMs += 20 * 60_000;
    ids.add((await client.call('GET /v1/users/me')).id);
  }
  return { ids: [...ids], refreshes, events };
}

const commands: Record<string, (argument: string) => Promise<object>> = {
  login: async (argument) => ({ id: (await client.login(JSON.parse(argument))).user.id }),
  refresh: (argument) => refreshAndCall(Number(argument)),
  signOut: () => client.signOut(),
};

report({ at: 'ready' });
for await (const line of createInterface({ input: process.stdin })) {
  const [name = '', argument = ''] = line.split(/ (.*)/s);
  try {
    report(await commands[name]!(argument));
  } catch (error) {
    report({ error: (error as Error).name, message: (error as Error).message });
  }
}
