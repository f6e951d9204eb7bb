/**
 * A module that stands before the app's: while a test asks for it, every query of this isolate fails as D1 does when it cannot be
 * reached; or a batch that inserts into a table is committed, and its result is lost. (A missing table would be a mistake, and no outage.)
 * `POST /__sql` runs statements in any case: Miniflare's own way to the database stops the whole test process while it asks.
 */
export const BREAKABLE = `
import app from './app.js';

const lost = async () => { throw new Error('D1_ERROR: Network connection lost.'); };
const statement = { bind: () => statement, all: lost, run: lost, raw: lost, first: lost };
const nowhere = { prepare: () => statement, batch: lost };

let away = false;
let lossy = '';
const known = new WeakMap();

function losing(session) {
  const sql = [];
  return {
    prepare: (text) => (sql.push(text.toLowerCase()), session.prepare(text)),
    async batch(statements) {
      const results = await session.batch(statements);
      return lossy !== '' && sql.some((text) => text.startsWith('insert into "' + lossy + '"')) ? lost() : results;
    },
  };
}

function breakable(env) {
  if (!known.has(env)) {
    const { DB } = env;
    known.set(env, { ...env, DB: {
      withSession: (mode) => (away ? nowhere : lossy === '' ? DB.withSession(mode) : losing(DB.withSession(mode))),
      prepare: (sql) => (away ? statement : DB.prepare(sql)),
      batch: (statements) => (away ? lost() : DB.batch(statements)),
    } });
  }
  return known.get(env);
}

export default {
  async fetch(request, env, context) {
    const { pathname, search } = new URL(request.url);
    if (pathname === '/__sql') {
      const statements = await request.json();
      try {
        const results = await env.DB.batch(statements.map(({ sql, values = [] }) => env.DB.prepare(sql).bind(...values)));
        return Response.json(results.at(-1).results);
      } catch (error) {
        return new Response(String(error), { status: 500 });
      }
    }
    if (pathname !== '/__database') return app.fetch(request, breakable(env), context);
    away = search === '?away';
    lossy = new URLSearchParams(search).get('lossy') ?? '';
    return new Response();
  },
  scheduled: (controller, env, context) => app.scheduled(controller, breakable(env), context),
};
`;
