/** A limit: no window of this length, wherever it starts, has more. */
export interface Numbers {
  maxRequests: number;
  windowMs: number;
}

/** Limits of the routes in `app.ts`, whose busy callers' units an isolate may lease. */
export const OWN_LIMITS = {
  own: { maxRequests: 30, windowMs: 20_000 },
  shop: { maxRequests: 45, windowMs: 30_000 },
} as const satisfies Record<string, Numbers>;

/** How long a request wants the lock, in milliseconds. */
export interface LockWish {
  leaseMs: number;
  /** For how long it works under the lock; it extends the lease when that is longer. */
  workMs: number;
  waitMs: number;
}
