import { useCallback, useRef, useState } from 'hono/jsx/dom';

import { useEffect } from './effect.ts';
import { NetworkError, SessionChangedError } from './session.ts';

/** The state of a page's data. Old data stay while newer data load, or if loading them fails. */
export interface Loaded<T> {
  data: T | undefined;
  error: unknown;
  isLoading: boolean;
  reload: () => void;
}

/** Called after each attempt, so that the page can say when the server cannot be reached. */
type Observer = (isReached: boolean) => void;
let observer: Observer = () => undefined;
export const observeConnection = (next: Observer): void => {
  observer = next;
};

export interface LoadOptions {
  /** Loads again so long after each outcome, while the page is visible. */
  everyMs?: number;
}

/**
 * Loads when `key` changes, and again and again with `everyMs`. An outcome that comes after the key has changed is
 * dropped.
 */
export function useLoad<T>(key: string, load: () => Promise<T>, { everyMs }: LoadOptions = {}): Loaded<T> {
  const [state, setState] = useState<{ key: string; data: T | undefined; error: unknown; isLoading: boolean }>({
    key,
    data: undefined,
    error: undefined,
    isLoading: true,
  });
  const [turn, setTurn] = useState(0);
  const latest = useRef(load);
  latest.current = load;

  useEffect(() => {
    let isOver = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const run = async () => {
      if (document.visibilityState === 'hidden' && everyMs !== undefined) return again();
      try {
        const data = await (latest.current ?? load)();
        observer(true);
        if (!isOver) setState({ key, data, error: undefined, isLoading: false });
      } catch (error) {
        observer(!(error instanceof NetworkError));
        // The page for signing in is there by then.
        if (error instanceof SessionChangedError) return;
        if (!isOver) setState((former) => ({ ...former, key, error, isLoading: false }));
      }
      again();
    };
    const again = () => {
      if (!isOver && everyMs !== undefined) timer = setTimeout(() => void run(), everyMs);
    };
    setState((former) =>
      former.key === key ? { ...former, isLoading: true } : { key, data: undefined, error: undefined, isLoading: true },
    );
    void run();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [key, turn, everyMs]);

  const reload = useCallback(() => setTurn((former) => former + 1), []);
  const isOther = state.key !== key;
  return {
    data: isOther ? undefined : state.data,
    error: isOther ? undefined : state.error,
    isLoading: isOther || state.isLoading,
    reload,
  };
}
