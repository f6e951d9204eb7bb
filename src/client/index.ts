export { createClient } from './client.ts';
export { ApiError, NetworkError, SessionChangedError } from './errors.ts';
export { asyncStorage, memoryStorage, webStorage } from './storage.ts';
export type * from './contract.ts';
export type { ClientEvents, SignedOutReason } from './events.ts';
export type { AsyncStore, SessionStorage, WebStorageArea } from './storage.ts';
export type { CallOptions, ClientOptions, GatehouseClient, SendOptions } from './types.ts';
