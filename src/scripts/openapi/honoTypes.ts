import type { Contract } from './contract.ts';
import { HEADER, jsonOf, keyOf, operationsOf, parametersOf, typeOf } from './typeOf.ts';
import type { NamedOperation } from './typeOf.ts';

/** Module with `AppType` for Hono's client, which needs nothing of the server. */
export function honoTypes(contract: Contract): string {
  const byPath = Map.groupBy(operationsOf(contract), ({ path }) => path);
  const names = Object.keys(contract.components.schemas);
  const body = [...byPath]
    .map(([path, operations]) => `'${honoPath(path)}': {\n${operations.map(endpoint).join('\n')}\n};`)
    .join('\n');
  const used = names.filter((name) => new RegExp(`\\b${name}\\b`).test(body));
  return `${HEADER}import type { Hono } from 'hono';

import type { ${used.join(', ')} } from './contract.ts';

/** The routes, in the form that Hono's client reads. */
export interface Routes {
${body}
}

/** For \`hc<AppType>('https://…')\`. */
// oxlint-disable-next-line typescript/no-empty-object-type -- Hono's own default
export type AppType = Hono<{}, { [Path in keyof Routes]: Routes[Path] }>;
`;
}

const honoPath = (path: string) => path.replace(/\{([\w-]+)\}/g, ':$1');

function endpoint(operation: NamedOperation): string {
  const { method, summary, requestBody, responses } = operation;
  const input: string[] = [];
  const params = parametersOf(operation, 'path');
  if (params.length > 0) input.push(`param: { ${params.map(({ name }) => `${keyOf(name)}: string`).join('; ')} }`);
  const query = parametersOf(operation, 'query');
  if (query.length > 0) {
    // Hono sends strings and takes nothing else.
    input.push(
      `query: { ${query.map(({ name, required }) => `${keyOf(name)}${required ? '' : '?'}: string`).join('; ')} }`,
    );
  }
  const body = jsonOf(requestBody?.content);
  if (body !== undefined) input.push(`json: ${typeOf(body)}`);
  const given = input.length > 0 ? `{ ${input.join('; ')} }` : 'object';
  const outcomes = Object.entries(responses).flatMap(([status, { content }]) => {
    const code = status === 'default' ? '500' : status;
    const json = jsonOf(content);
    const bodies = [
      ...(json === undefined ? [] : [typeOf(json)]),
      ...(content?.['application/problem+json'] === undefined ? [] : ['Problem']),
    ];
    if (content?.['text/plain'] !== undefined) {
      return [`{ input: ${given}; output: string; outputFormat: 'body'; status: ${code} }`];
    }
    if (bodies.length === 0) return [`{ input: ${given}; output: null; outputFormat: 'body'; status: ${code} }`];
    return bodies.map((type) => `{ input: ${given}; output: ${type}; outputFormat: 'json'; status: ${code} }`);
  });
  return `/** ${summary}. */\n$${method.toLowerCase()}: ${outcomes.join(' | ')};`;
}
