/** The start data of the embedded engine's thread. */
export interface EngineData {
  port: number;
  /** One counter, which the thread raises every {@link BEAT_MS}. */
  beats: Int32Array<SharedArrayBuffer>;
}

/** The messages of the thread. */
export type EngineMessage = { ready: true } | { crashed: string };

/** How often the engine's thread shows that it is alive, in milliseconds. */
export const BEAT_MS = 50;
