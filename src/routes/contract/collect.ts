import type { ZodType } from 'zod';

import type { ErrorCode } from '../../errors';
import { factsOf } from '../../middlewares/contract';

/** A route as the app serves it, with the facts of its middlewares. */
export interface Operation {
  method: string;
  /** With parameters as `{name}`. */
  path: string;
  json?: ZodType;
  query?: ZodType;
  param?: ZodType;
  /** Names of its checks, such as `authenticate()`. */
  checks: ReadonlySet<string>;
  /** Codes that its checks refuse with on this route, beside the usual ones of each check. */
  checkCodes: readonly ErrorCode[];
  /** Whether its body may also be a form. */
  takesForm: boolean;
  /** Whether it changes nothing, so that it is served while changes are refused. */
  changesNothing: boolean;
  /** Whether its checks may be decided from the isolate's memory. */
  remembers: boolean;
}

interface ServedRoute {
  method: string;
  path: string;
  handler: object;
}

/** All routes of an app, in the order of the app's own. */
export function collect(routes: readonly ServedRoute[]): Operation[] {
  const forAll = routes.filter(({ method }) => method === 'ALL');
  const keys = new Set(routes.filter(({ method }) => method !== 'ALL').map(({ method, path }) => `${method} ${path}`));
  return [...keys].flatMap((key) => {
    const [method = '', path = ''] = key.split(' ');
    const facts = [
      ...forAll.filter((route) => covers(route.path, path)),
      ...routes.filter((route) => route.method === method && route.path === path),
    ].map(({ handler }) => factsOf(handler));
    const validators: Partial<Operation> = Object.assign(
      {},
      ...facts.map(({ json, query, param }) => defined({ json, query, param })),
    );
    const common = {
      method,
      checks: new Set(facts.flatMap(({ checks = [] }) => checks.map(({ name }) => name))),
      checkCodes: facts.flatMap(({ checks = [] }) => checks.flatMap(({ codes = [] }) => codes)),
      takesForm: facts.some(({ forms = [] }) => forms.includes(path)),
      changesNothing: method === 'GET' || facts.some((fact) => fact.changesNothing === true),
      remembers: facts.some(({ remembers = false }) => remembers),
    };
    return templatesOf(path).map((template): Operation => Object.assign({ path: template }, common, validators));
  });
}

const defined = (members: object) =>
  Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));

/** Whether a middleware that was mounted for `pattern` runs for a route. */
function covers(pattern: string, path: string): boolean {
  const prefix = pattern.replace(/\/?\*$/, '');
  return pattern.endsWith('*') ? path === prefix || path.startsWith(`${prefix}/`) : pattern === path;
}

/** Hono's `/:id`, `/:id{[0-9]+}`, `/:id?` and `*` as templates of the contract. */
function templatesOf(path: string): string[] {
  const parts = path.split('/');
  const last = parts.at(-1) ?? '';
  const optional = last.startsWith(':') && last.endsWith('?');
  const template = parts.map((part) => part.replace(/^:([\w-]+).*$/, '{$1}').replace('*', '{path}')).join('/');
  return optional ? [parts.slice(0, -1).join('/') || '/', template] : [template];
}
