/**
 * The outcome of a promise that settles within `ms`, else the outcome of `late()`. The promise itself continues.
 *
 * @throws what either of them throws
 */
export async function within<T, L>(promise: Promise<T>, ms: number, late: () => L): Promise<T | L> {
  const elapsed = Promise.withResolvers<L>();
  const timer = setTimeout(() => {
    try {
      elapsed.resolve(late());
    } catch (error) {
      elapsed.reject(error);
    }
  }, ms);
  try {
    return await Promise.race([promise, elapsed.promise]);
  } finally {
    clearTimeout(timer);
  }
}
