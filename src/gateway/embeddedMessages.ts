/** What the thread of the embedded engine is started with. */
export interface EngineData {
  port: number;
  /** One counter, which the thread raises every {@link BEAT_MS}. */
  beats: Int32Array<SharedArrayBuffer>;
}

/** What the thread tells. */
export type EngineMessage = { ready: true } | { crashed: string };

/** How often the engine's thread shows that it is alive, in milliseconds. */
export const BEAT_MS = 50;
