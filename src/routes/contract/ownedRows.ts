import * as z from 'zod';

import { describe } from './describe';
import { page, time } from './responses';

/**
 * Details of the five operations over `ownedRows(…)`.
 *
 * @param fields of a row, beside `id` and `createdAt`
 * @example
 * describeOwnedRows('/v1/notes', z.object({ text: z.string() }));
 */
export function describeOwnedRows(path: string, fields: z.ZodObject): void {
  const row = z.object({ id: z.string(), ...fields.shape, createdAt: time });
  const list = z.object({ items: z.array(row), ...page });
  const one = `${path}/{id}`;
  describe(`GET ${path}`, {
    summary: 'List your own',
    responses: { 200: { description: 'A page, newest first.', body: list } },
  });
  describe(`POST ${path}`, {
    summary: 'Create one',
    responses: { 201: { description: 'It was created.', body: row } },
  });
  describe(`GET ${one}`, {
    summary: 'Show one of your own',
    responses: { 200: { description: 'It.', body: row } },
    codes: ['NOT_FOUND'],
  });
  describe(`PATCH ${one}`, {
    summary: 'Change one of your own',
    responses: { 200: { description: 'It, after the change.', body: row } },
    codes: ['NOT_FOUND'],
  });
  describe(`DELETE ${one}`, {
    summary: 'Delete one of your own',
    responses: { 204: { description: 'It was deleted.' } },
    codes: ['NOT_FOUND'],
  });
}
