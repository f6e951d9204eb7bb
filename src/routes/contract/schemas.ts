import * as z from 'zod';

import { ADDED, SHAPES } from './shapes';
import type { Json } from './shapes';

/** Schema of the input that a validator accepts. */
export function inputSchema(schema: z.ZodType): Json {
  const made = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    override({ zodSchema, jsonSchema }) {
      const shape = SHAPES.get(zodSchema);
      if (shape !== undefined) replace(jsonSchema, shape);
      else if (Array.isArray(jsonSchema.anyOf)) replace(jsonSchema, withoutUnion(jsonSchema as Json));
      Object.assign(jsonSchema, ADDED.get(zodSchema));
    },
  }) as Json;
  delete made['$schema'];
  return made;
}

/** Schema of a response. Objects are open: a client must not fail because of a new member. */
export function outputSchemas(schemas: Readonly<Record<string, z.ZodType>>, prefix: string): Record<string, Json> {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(schemas)) registry.add(schema, { id });
  // zod's type of a JSON Schema is closed; members are added and removed here.
  const made = z.toJSONSchema(registry, {
    io: 'output',
    uri: (id) => `${prefix}${id}`,
    override({ zodSchema, jsonSchema }) {
      const { type } = zodSchema._zod.def;
      if (type === 'object') delete jsonSchema.additionalProperties;
      if (jsonSchema.type === 'integer') trimInteger(jsonSchema as Json);
      // The format implies the pattern.
      if (jsonSchema.format !== undefined) delete jsonSchema.pattern;
      Object.assign(jsonSchema, z.globalRegistry.get(zodSchema));
      if (Array.isArray(jsonSchema.anyOf)) replace(jsonSchema, withoutUnion(jsonSchema as Json));
    },
  }) as unknown as { schemas: Record<string, Json> };
  for (const schema of Object.values(made.schemas)) {
    delete schema['$schema'];
    delete schema['$id'];
    delete schema['id'];
  }
  return made.schemas;
}

/** Zod writes the bounds of safe integers, which say nothing here. */
function trimInteger(schema: Json): void {
  if (schema['minimum'] === Number.MIN_SAFE_INTEGER) delete schema['minimum'];
  if (schema['maximum'] === Number.MAX_SAFE_INTEGER) delete schema['maximum'];
}

function replace(target: object, source: Json): void {
  for (const key of Object.keys(target)) delete (target as Json)[key];
  Object.assign(target, source);
}

/**
 * A union with `null` in a form that generators support: `null` as a second type. For an enumeration it is left out, because a
 * `null` among the values breaks generators; the validators still accept it.
 */
function withoutUnion({ anyOf, ...rest }: Json): Json {
  const parts = (anyOf as Json[]).filter(({ type }) => type !== 'null');
  const [only] = parts;
  if (parts.length !== 1 || only === undefined) throw new TypeError('the contract has no place for a union');
  if ('enum' in only || typeof only['type'] !== 'string') return { ...rest, ...only };
  return { ...rest, ...only, type: [only['type'], 'null'] };
}
