import { useRef, useState } from 'hono/jsx/dom';

import { useEffect } from '../effect.ts';
import { at } from '../format.ts';
import { useLoad } from '../load.ts';
import { go } from '../router.ts';
import type { Place } from '../router.ts';
import { client } from '../session.ts';
import { Content, Empty, Page, Pager, Table, Tag } from '../ui.tsx';

const LIMIT = 50;
const TYPING_MS = 250;

export function Users({ place }: { place: Place }) {
  const q = place.query.get('q') ?? '';
  const page = Math.max(1, Number(place.query.get('page') ?? 1) || 1);
  const [text, setText] = useState(q);
  const loaded = useLoad(`users ${page} ${q}`, () =>
    client.call('GET /v1/users', { query: { page, limit: LIMIT, ...(q !== '' && { q }) } }),
  );

  const sent = useRef(q);
  useEffect(() => {
    const wanted = text.trim();
    if (wanted === sent.current) return undefined;
    const timer = setTimeout(() => {
      sent.current = wanted;
      go('users', { q: wanted });
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);
  // The browser's history, or a link, has led to another search.
  useEffect(() => {
    if (q === sent.current) return;
    sent.current = q;
    setText(q);
  }, [q]);

  return (
    <Page title="Users">
      <form class="bar" role="search" onSubmit={(event: Event) => event.preventDefault()}>
        <label class="grow">
          <span class="hidden">Search by name or e-mail address</span>
          <input
            type="search"
            placeholder="Search by name or e-mail address"
            value={text}
            maxlength={100}
            onInput={(event: Event) => setText((event.currentTarget as HTMLInputElement).value)}
          />
        </label>
      </form>
      <Content of={loaded}>
        {({ items, total }) =>
          items.length === 0 ? (
            <Empty>
              {q === '' ? 'No account has been registered yet.' : `No account has “${q}” in its name or address.`}
            </Empty>
          ) : (
            <>
              <Table label="Users" head={['Name', 'E-mail address', 'Role', 'Status', 'Registered']}>
                {items.map(({ id, name, email, role, status, createdAt }) => (
                  <tr key={id}>
                    <td>
                      <a href={`#/users/${encodeURIComponent(id)}`}>{name}</a>
                    </td>
                    <td>{email}</td>
                    <td>{role === 'admin' ? <Tag tone="accent">admin</Tag> : role}</td>
                    <td>{status === 'active' ? 'active' : <Tag tone="bad">disabled</Tag>}</td>
                    <td class="quiet">{at(createdAt)}</td>
                  </tr>
                ))}
              </Table>
              <Pager page={page} limit={LIMIT} total={total} onPage={(next) => go('users', { q, page: next })} />
            </>
          )
        }
      </Content>
    </Page>
  );
}
