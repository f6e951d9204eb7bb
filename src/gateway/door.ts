import type { Access } from './auth.ts';
import type { Backend } from './backend.ts';
import type { Executor } from './executor.ts';
import type { Streams } from './streams.ts';

/** The backend of one kind of token. */
export interface Door {
  backend: Backend;
  executor: Executor;
  streams: Streams;
}

export type Doors = Readonly<Record<Access, Door>>;
