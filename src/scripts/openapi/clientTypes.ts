import type { Contract } from './contract.ts';
import { HEADER, jsonOf, keyOf, namedTypes, operationsOf, parametersOf, typeOf } from './typeOf.ts';
import type { NamedOperation } from './typeOf.ts';

/** Sign-in, refresh and sign-out: the client has functions for them, which keep what they return. */
const OWN =
  /^POST \/v1\/auth\/(register|login|refresh|revoke|logout|logout-all|password|reauthenticate)$|^DELETE \/v1\/users\/me$/;

/** Module of the client library: types of all schemas and operations. */
export function clientTypes(contract: Contract): string {
  const operations = operationsOf(contract);
  const callable = operations.filter(({ method, path }) => !OWN.test(`${method} ${path}`));
  const withKey = operations
    .filter(({ parameters = [] }) => parameters.some(({ name }) => name === 'Idempotency-Key'))
    .map(({ method, path }) => `${method} ${path}`);
  const withoutKey = operations
    .filter((operation) => operation['x-idempotent'] === true && !operation.method.match(/GET|DELETE/))
    .map(({ method, path }) => `${method} ${path}`);
  return `${HEADER}${namedTypes(contract)}

/** Codes of {@link Problem} that are known; later versions of the API may add more. */
export type ErrorCode = ${codesOf(contract)
    .map((code) => JSON.stringify(code))
    .join(' | ')};

/** What \`call\` sends and returns. */
export interface Operations {
${callable.map((operation) => memberOf(operation)).join('\n')}
}

/** Operations that take an \`Idempotency-Key\`: repeated with the same key they run once. */
export const IDEMPOTENT_WITH_KEY: readonly string[] = ${JSON.stringify(withKey)};

/** POSTs and PATCHes that may be repeated without a key. */
export const IDEMPOTENT: readonly string[] = ${JSON.stringify(withoutKey)};
`;
}

function memberOf(operation: NamedOperation): string {
  const { method, path, summary, requestBody, responses } = operation;
  const members: string[] = [];
  const params = parametersOf(operation, 'path');
  if (params.length > 0) members.push(`params: { ${params.map(({ name }) => `${keyOf(name)}: string`).join('; ')} }`);
  const query = parametersOf(operation, 'query');
  if (query.length > 0) {
    const all = query.map(({ name, required, schema }) => `${keyOf(name)}${required ? '' : '?'}: ${typeOf(schema)}`);
    members.push(`query${query.some(({ required }) => required) ? '' : '?'}: { ${all.join('; ')} }`);
  }
  const body = jsonOf(requestBody?.content);
  if (body !== undefined) members.push(`body: ${typeOf(body)}`);
  const results = Object.entries(responses)
    .filter(([status]) => status.startsWith('2'))
    .map(([, { content }]) => jsonOf(content))
    .map((schema) => (schema === undefined ? 'undefined' : typeOf(schema)));
  members.push(`result: ${[...new Set(results)].join(' | ')}`);
  return `/** ${summary}. */\n'${method} ${path}': { ${members.join('; ')} };`;
}

function codesOf({ components }: Contract): string[] {
  const code = components.schemas['Problem']?.properties?.['code'] as { examples?: string[] } | undefined;
  return code?.examples ?? [];
}
