import type { TestProject } from 'vitest/node';

import { startGateway } from '../../src/gateway/gateway.ts';
import { PATIENT_DEADLINES, testBindings } from './bindings.ts';

declare module 'vitest' {
  interface ProvidedContext {
    bindings: Record<string, string>;
  }
}

/** One gateway with an embedded engine for all worker tests; each test file keeps to users and keys of its own. */
export default async function setup(project: TestProject) {
  const token = 'test-token';
  const gateway = await startGateway({ token, port: 0 });
  project.provide('bindings', { ...testBindings({ url: gateway.url, token }), ...PATIENT_DEADLINES });
  return () => gateway.close();
}
