import { useState } from 'hono/jsx/dom';

import { useEffect } from './effect.ts';

/** Where the page is: `#/users/42?page=2`. In the part that no server sees. */
export interface Place {
  parts: readonly string[];
  query: URLSearchParams;
}

function placeNow(): Place {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  return { parts: path.split('/').filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query) };
}

export function usePlace(): Place {
  const [place, setPlace] = useState(placeNow());
  useEffect(() => {
    const change = () => setPlace(placeNow());
    addEventListener('hashchange', change);
    return () => removeEventListener('hashchange', change);
  }, []);
  return place;
}

export function go(path: string, query: Readonly<Record<string, string | number | undefined>> = {}): void {
  const set = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  const search = new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
  location.hash = `#/${path}${search === '' ? '' : `?${search}`}`;
}
