import { useLayoutEffect } from 'hono/jsx/dom';

/**
 * Runs `effect` in the next frame after `deps` have changed, and its cleanup before the next run or when the component
 * goes. In place of Hono's own `useEffect`: that one, too, waits for a frame, but a render that comes before the frame
 * does not cancel it. The former effect then runs after all, and its cleanup never does. (A search typed quickly set
 * timers and sent requests that nothing stopped, and a late response replaced the newest one.)
 */
export function useEffect(effect: () => void | (() => void), deps: readonly unknown[]): void {
  useLayoutEffect(() => {
    let cleanup: void | (() => void);
    const frame = requestAnimationFrame(() => {
      cleanup = effect();
    });
    return () => {
      cancelAnimationFrame(frame);
      cleanup?.();
    };
  }, deps);
}
