import { useState } from 'hono/jsx/dom';

import { at, count, duration, windowText } from '../format.ts';
import { useLoad } from '../load.ts';
import { client, describe } from '../session.ts';
import type { Limiter, LimitStates } from '../session.ts';
import { act, confirmed, Content, Empty, Failure, fieldOf, Page, Table, Tag } from '../ui.tsx';

/** The form of an identity, by the kind that a limiter counts. */
const TYPED: Readonly<Record<string, string>> = {
  caller: 'E-mail address, user id or IP address',
  address: 'IP address',
  account: 'E-mail address or user id',
  'address-and-account': 'E-mail address and IP address, separated by a space',
  session: 'Session id',
  'session-or-address': 'Session id or IP address',
  own: 'Identity, as the app makes it',
};

const COUNTED: Readonly<Record<string, string>> = {
  caller: 'user, else address',
  'address-and-account': 'address and account',
  'session-or-address': 'session, else address',
  own: 'the app’s own',
};

export function Limits() {
  const loaded = useLoad('limits', () => client.call('GET /v1/admin/limits'), { everyMs: 15_000 });
  const [edited, setEdited] = useState<string | undefined>(undefined);
  return (
    <Page title="Limits">
      <Content of={loaded}>
        {({ limits }) => (
          <>
            <Look limits={limits} />
            <section>
              <h2>Limiters</h2>
              {limits.length === 0 && <Empty>No limiter is mounted.</Empty>}
              <Table label="Limiters" head={['Name', 'Numbers', 'Counted by', 'Mounted at', '']}>
                {limits.map((limiter) => (
                  <Row
                    key={limiter.policy}
                    limiter={limiter}
                    isEdited={edited === limiter.policy}
                    edit={(isEdited) => setEdited(isEdited ? limiter.policy : undefined)}
                    reload={loaded.reload}
                  />
                ))}
              </Table>
            </section>
          </>
        )}
      </Content>
    </Page>
  );
}

interface RowProps {
  limiter: Limiter;
  isEdited: boolean;
  edit: (isEdited: boolean) => void;
  reload: () => void;
}

function Row({ limiter, isEdited, edit, reload }: RowProps) {
  const { policy, windows, ownWindows, overriddenAt, places, counts } = limiter;
  const texts = windows.map(windowText);
  const [place = ''] = places;

  async function restore(): Promise<void> {
    const question = {
      title: `Restore ${policy}?`,
      text: `The app’s own numbers count again: ${ownWindows.map(windowText).join('; ') || 'by request'}.`,
      action: 'Restore',
    };
    if (!(await confirmed(question))) return;
    await act(() => client.call('POST /v1/admin/limits/restore', { body: { policy } }), `${policy} is restored.`);
    reload();
  }

  return (
    <>
      <tr>
        <td>
          <b>{policy}</b>
        </td>
        <td>
          {texts.length === 0 ? <span class="quiet">by request</span> : texts.join('; ')}{' '}
          {overriddenAt !== null && (
            <span title={`Since ${at(overriddenAt)}. The app’s own: ${ownWindows.map(windowText).join('; ')}`}>
              <Tag tone="accent">overridden</Tag>
            </span>
          )}
        </td>
        <td class="quiet">{COUNTED[counts] ?? counts}</td>
        <td class="quiet place" title={places.join('\n')}>
          {place}
          {places.length > 1 && ` and ${places.length - 1} more`}
        </td>
        <td class="end">
          {overriddenAt !== null && (
            <button type="button" onClick={() => void restore()}>
              Restore<span class="hidden"> {policy}</span>
            </button>
          )}
          <button type="button" aria-expanded={isEdited} onClick={() => edit(!isEdited)}>
            Override<span class="hidden"> {policy}</span>
          </button>
        </td>
      </tr>
      {isEdited && (
        <tr class="editor">
          <td colspan={5}>
            <Override limiter={limiter} close={() => edit(false)} reload={reload} />
          </td>
        </tr>
      )}
    </>
  );
}

const UNITS = { s: 1_000, min: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A window in its largest unit. */
function unitOf(windowMs: number): keyof typeof UNITS {
  return (Object.keys(UNITS) as (keyof typeof UNITS)[]).findLast((unit) => windowMs % UNITS[unit] === 0) ?? 's';
}

function Override({ limiter, close, reload }: { limiter: Limiter; close: () => void; reload: () => void }) {
  const { policy, windows } = limiter;
  const [first = { maxRequests: 100, windowMs: 900_000 }] = windows;
  const unit = unitOf(first.windowMs);
  const [error, setError] = useState<unknown>(undefined);

  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const windowMs = Number(fieldOf(form, 'length')) * UNITS[fieldOf(form, 'unit') as keyof typeof UNITS];
    const window = { maxRequests: Number(fieldOf(form, 'requests')), windowMs };
    try {
      const { pending } = await client.call('POST /v1/admin/limits/override', { body: { policy, windows: [window] } });
      const soon = pending
        ? 'The change is stored, but Redis does not have it yet: it applies within 90 s.'
        : 'It applies everywhere within 20 s.';
      await act(() => Promise.resolve(), `${policy}: ${windowText(window)}. ${soon}`);
      close();
      reload();
    } catch (failure) {
      setError(failure);
    }
  }

  return (
    <form class="bar" onSubmit={(event: Event) => void submit(event)} aria-label={`Numbers of ${policy}`}>
      <label>
        Requests
        <input name="requests" type="number" min={1} max={1_000_000} required value={first.maxRequests} autofocus />
      </label>
      <label>
        in
        <input name="length" type="number" min={1} required value={first.windowMs / UNITS[unit]} />
      </label>
      <label>
        <span class="hidden">Unit of time</span>
        <select name="unit">
          {Object.keys(UNITS).map((name) => (
            <option value={name} selected={name === unit}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <button type="submit" class="primary">
        Set
      </button>
      <button type="button" onClick={close}>
        Cancel
      </button>
      {windows.length > 1 && <p class="hint">It has {windows.length} windows; this one takes the place of all.</p>}
      {error !== undefined && (
        <p class="wrong" role="alert">
          {describe(error)}
        </p>
      )}
    </form>
  );
}

/** One identity's counter. */
function Look({ limits }: { limits: readonly Limiter[] }) {
  const [policy, setPolicy] = useState(
    limits.some((one) => one.policy === 'login') ? 'login' : (limits[0]?.policy ?? ''),
  );
  const [found, setFound] = useState<{ identity: string; states: LimitStates } | undefined>(undefined);
  const [error, setError] = useState<unknown>(undefined);
  const counts = limits.find((one) => one.policy === policy)?.counts ?? '';

  async function look(identity: string): Promise<void> {
    setError(undefined);
    try {
      const states = await client.call('POST /v1/admin/limits/peek', { body: { policy, identity } });
      setFound({ identity, states });
    } catch (failure) {
      setFound(undefined);
      setError(failure);
    }
  }
  const submit = (event: Event) => {
    event.preventDefault();
    void look(fieldOf(event.currentTarget as HTMLFormElement, 'identity'));
  };
  const reset = async (identity: string) => {
    await act(
      () => client.call('POST /v1/admin/limits/reset', { body: { policy, identity } }),
      'The counter is reset.',
    );
    await look(identity);
  };

  return (
    <section>
      <h2>One identity</h2>
      <form class="bar" onSubmit={submit}>
        <label>
          Limiter
          <select
            value={policy}
            onChange={(event: Event) => {
              setPolicy((event.currentTarget as HTMLSelectElement).value);
              setFound(undefined);
              setError(undefined);
            }}
          >
            {limits.map((one) => (
              <option value={one.policy} selected={one.policy === policy}>
                {one.policy}
              </option>
            ))}
          </select>
        </label>
        <label class="grow">
          {TYPED[counts] ?? 'Identity'}
          <input name="identity" required maxlength={400} autocomplete="off" spellcheck={false} />
        </label>
        <button type="submit" class="primary">
          Look
        </button>
      </form>
      {error !== undefined && <Failure error={error} />}
      {found !== undefined && (
        <div class="result">
          {found.states.limits.map(({ name, maxRequests, windowMs, remaining, resetMs }) => (
            <p key={name}>
              <b>{name}</b>: {count(maxRequests - remaining)} of {windowText({ maxRequests, windowMs })} used,{' '}
              {count(remaining)} left{remaining < maxRequests && `; all again in ${duration(resetMs / 1_000)}`}.
            </p>
          ))}
          <button type="button" onClick={() => void reset(found.identity)}>
            Reset
          </button>
        </div>
      )}
    </section>
  );
}
