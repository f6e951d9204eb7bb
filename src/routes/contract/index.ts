import { version } from '../../../package.json';
import { createApp } from '../../app';
import { collect } from './collect';
import { described } from './describe';
import './details';
import './adminDetails';
import { createDocument } from './document';
import type { Json } from './shapes';

export { ERRORS } from '../../errors';

/** The contract of the whole app. @throws {TypeError} a description of a route that is not served */
export function createContract(): Json {
  const operations = collect(createApp().routes);
  const served = new Set(operations.map(({ method, path }) => `${method} ${path}`));
  const stray = described().filter((operation) => !served.has(operation));
  if (stray.length > 0) throw new TypeError(`described, but not served: ${stray.join(', ')}`);
  return createDocument(operations, version);
}
