import { useState } from 'hono/jsx/dom';

import { useEffect } from './effect.ts';
import { clockAt } from './format.ts';
import { observeConnection } from './load.ts';
import { Audit } from './pages/audit.tsx';
import { Cache } from './pages/cache.tsx';
import { Keys } from './pages/keys.tsx';
import { Limits } from './pages/limits.tsx';
import { Overview } from './pages/overview.tsx';
import { Settings } from './pages/settings.tsx';
import { SignInPage } from './pages/signIn.tsx';
import { UserPage } from './pages/user.tsx';
import { Users } from './pages/users.tsx';
import { Warming } from './pages/warming.tsx';
import { usePlace } from './router.ts';
import type { Place } from './router.ts';
import { client, endedText } from './session.ts';
import type { User } from './session.ts';
import { Questions, Sayings } from './ui.tsx';

const SECTIONS = [
  ['', 'Overview'],
  ['users', 'Users'],
  ['limits', 'Limits'],
  ['cache', 'Cache'],
  ['warming', 'Warming'],
  ['keys', 'Keys'],
  ['settings', 'Settings'],
  ['audit', 'Audit'],
] as const;

export function App() {
  const [user, setUser] = useState<User | undefined>(undefined);
  const [notice, setNotice] = useState('');
  useEffect(
    () =>
      client.on('signedOut', ({ reason }) => {
        setNotice(endedText(reason));
        setUser(undefined);
      }),
    [],
  );
  if (user === undefined) return <SignInPage notice={notice} onSignedIn={setUser} />;
  return <Console user={user} />;
}

function Console({ user }: { user: User }) {
  const place = usePlace();
  const [section = ''] = place.parts;
  // Who has followed a link reads on at the new page's heading.
  useEffect(() => {
    document.querySelector<HTMLElement>('main h1')?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [place.parts.join('/')]);
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <div class="frame">
        <aside>
          <p class="brand">
            Gatehouse <span>console</span>
          </p>
          <nav aria-label="Sections">
            {SECTIONS.map(([path, name]) => (
              <a key={path} href={`#/${path}`} aria-current={section === path ? 'page' : undefined}>
                {name}
              </a>
            ))}
          </nav>
          <div class="account">
            <span title={user.email}>{user.email}</span>
            <button type="button" onClick={() => void client.signOut()}>
              Sign out
            </button>
          </div>
        </aside>
        <main id="main">
          <Connection />
          <Section place={place} user={user} />
        </main>
      </div>
      <Questions />
      <Sayings />
    </>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>('main h1')?.focus();
}

function Section({ place, user }: { place: Place; user: User }) {
  const [section = '', id] = place.parts;
  switch (section) {
    case 'users':
      return id === undefined ? <Users place={place} /> : <UserPage key={id} id={id} me={user} />;
    case 'limits':
      return <Limits />;
    case 'cache':
      return <Cache />;
    case 'warming':
      return <Warming />;
    case 'keys':
      return <Keys />;
    case 'settings':
      return <Settings />;
    case 'audit':
      return <Audit place={place} />;
    default:
      return <Overview />;
  }
}

/** Says when the server cannot be reached, and since when. */
function Connection() {
  const [lostAtMs, setLostAtMs] = useState<number | undefined>(undefined);
  useEffect(() => {
    observeConnection((isReached) => setLostAtMs((former) => (isReached ? undefined : (former ?? Date.now()))));
    return () => observeConnection(() => undefined);
  }, []);
  if (lostAtMs === undefined) return <></>;
  return (
    <p class="offline" role="alert">
      No connection to the server since {clockAt(lostAtMs)}. What you see is from then; the page goes on trying.
    </p>
  );
}
