import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { build } from 'esbuild';

import { ROOT } from '../cli.ts';

/** An OpenAPI document, as far as the generators read it. */
export interface Contract {
  info: { version: string };
  paths: Record<string, Record<string, ContractOperation>>;
  components: { schemas: Record<string, Schema> };
}

export interface ContractOperation {
  operationId: string;
  summary: string;
  parameters?: { name: string; in: 'path' | 'query' | 'header'; required: boolean; schema: Schema }[];
  'x-idempotent'?: boolean;
  requestBody?: { required: boolean; content: Record<string, { schema: Schema }> };
  responses: Record<string, { description: string; content?: Record<string, Media> }>;
}

export interface Media {
  schema: Schema;
  /** By code. */
  examples?: Record<string, { $ref: string }>;
}

export interface Schema {
  $ref?: string;
  type?: string | string[];
  description?: string;
  enum?: unknown[];
  const?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  additionalProperties?: boolean | Schema;
}

/** The contract of the code as it is, out of the app itself: bundled as the Worker is, and asked for its routes. */
export async function readContract(root = ROOT): Promise<Contract> {
  // Beside node_modules, where the bundle finds what stays outside of it.
  const folder = await mkdtemp(join(root, 'node_modules/.contract-'));
  try {
    const file = join(folder, 'contract.mjs');
    await build({
      entryPoints: [join(root, 'src/routes/contract/index.ts')],
      outfile: file,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'es2024',
      // Packages such as these use require().
      packages: 'external',
      logLevel: 'error',
    });
    const { createContract } = (await import(pathToFileURL(file).href)) as { createContract: () => Contract };
    return createContract();
  } finally {
    await rm(folder, { recursive: true });
  }
}
