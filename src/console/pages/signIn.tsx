import { useState } from 'hono/jsx/dom';

import { signIn } from '../session.ts';
import type { User } from '../session.ts';
import { fieldOf, typedIn } from '../ui.tsx';

export function SignInPage({ notice, onSignedIn }: { notice: string; onSignedIn: (user: User) => void }) {
  const [error, setError] = useState('');
  const [isBusy, setIsBusy] = useState(false);

  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    setIsBusy(true);
    setError('');
    const outcome = await signIn(fieldOf(form, 'email'), typedIn(form, 'password'));
    setIsBusy(false);
    if ('error' in outcome) setError(outcome.error);
    else onSignedIn(outcome.user);
  }

  return (
    <main class="sign-in">
      <form onSubmit={(event: Event) => void submit(event)}>
        <p class="brand">
          Gatehouse <span>console</span>
        </p>
        <h1>Sign in</h1>
        {notice !== '' && error === '' && <p class="notice">{notice}</p>}
        <label>
          E-mail address
          <input name="email" type="email" autocomplete="username" required autofocus />
        </label>
        <label>
          Password
          <input name="password" type="password" autocomplete="current-password" required />
        </label>
        <button type="submit" class="primary" disabled={isBusy}>
          {isBusy ? 'Signing in …' : 'Sign in'}
        </button>
        <div role="alert">{error !== '' && <p class="wrong">{error}</p>}</div>
        <p class="hint">For administrators. The session lives in this tab and ends with it.</p>
      </form>
    </main>
  );
}
