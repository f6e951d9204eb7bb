import type { Contract, ContractOperation, Media, Schema } from './contract.ts';

/** A schema as a TypeScript type. */
export function typeOf(schema: Schema): string {
  const { $ref, type, properties, items, additionalProperties, required = [] } = schema;
  if ($ref !== undefined) return $ref.split('/').at(-1) ?? 'unknown';
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  if (Array.isArray(type)) return type.map((one) => typeOf({ ...schema, type: one })).join(' | ');
  switch (type) {
    case 'string':
    case 'boolean':
    case 'null':
      return type;
    case 'integer':
    case 'number':
      return 'number';
    case 'array':
      return `(${typeOf(items ?? {})})[]`;
    case 'object': {
      if (properties === undefined || Object.keys(properties).length === 0) {
        return typeof additionalProperties === 'object' ? `Record<string, ${typeOf(additionalProperties)}>` : 'object';
      }
      const members = Object.entries(properties).map(([name, member]) => {
        const comment = member.description === undefined ? '' : `/** ${member.description} */\n`;
        return `${comment}${keyOf(name)}${required.includes(name) ? '' : '?'}: ${typeOf(member)};`;
      });
      return `{\n${members.join('\n')}\n}`;
    }
    case undefined:
    default:
      return 'unknown';
  }
}

export const keyOf = (name: string) => (/^[A-Za-z_]\w*$/.test(name) ? name : JSON.stringify(name));

/** Every named schema, exported. */
export function namedTypes({ components }: Contract): string {
  return Object.entries(components.schemas)
    .map(([name, schema]) => {
      const comment = schema.description === undefined ? '' : `/** ${schema.description} */\n`;
      const type = typeOf(schema);
      return `${comment}export ${type.startsWith('{') ? `interface ${name} ${type}` : `type ${name} = ${type};`}`;
    })
    .join('\n\n');
}

export interface NamedOperation extends ContractOperation {
  method: string;
  path: string;
}

export function operationsOf({ paths }: Contract): NamedOperation[] {
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) =>
      Object.assign({ method: method.toUpperCase(), path }, operation),
    ),
  );
}

/** Members of an operation's parameters in one place. */
export function parametersOf(
  operation: NamedOperation,
  place: 'path' | 'query',
): NonNullable<ContractOperation['parameters']> {
  return (operation.parameters ?? []).filter((parameter) => parameter.in === place);
}

export const jsonOf = (content: Record<string, Media> | undefined): Schema | undefined =>
  content?.['application/json']?.schema;

export const HEADER = '// Written by `npm run openapi` from the contract. Not to be edited.\n\n';
