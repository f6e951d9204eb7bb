/**
 * A module that stands before the app's: while it is told so, every query of this isolate fails as D1 does when it cannot be
 * reached. (A missing table would be a mistake, and no outage.)
 */
export const BREAKABLE = `
import app from './app.js';

const lost = async () => { throw new Error('D1_ERROR: Network connection lost.'); };
const statement = { bind: () => statement, all: lost, run: lost, raw: lost, first: lost };
const nowhere = { prepare: () => statement, batch: lost };

let away = false;
const known = new WeakMap();

function breakable(env) {
  if (!known.has(env)) {
    const { DB } = env;
    known.set(env, { ...env, DB: {
      withSession: (mode) => (away ? nowhere : DB.withSession(mode)),
      prepare: (sql) => (away ? statement : DB.prepare(sql)),
      batch: (statements) => (away ? lost() : DB.batch(statements)),
    } });
  }
  return known.get(env);
}

export default {
  fetch(request, env, context) {
    const { pathname, search } = new URL(request.url);
    if (pathname !== '/__database') return app.fetch(request, breakable(env), context);
    away = search === '?away';
    return new Response();
  },
  scheduled: (controller, env, context) => app.scheduled(controller, breakable(env), context),
};
`;
