import { at } from '../format.ts';
import { useLoad } from '../load.ts';
import { go } from '../router.ts';
import type { Place } from '../router.ts';
import { client } from '../session.ts';
import { Content, Empty, Page, Pager, Table } from '../ui.tsx';

const LIMIT = 50;

export function Audit({ place }: { place: Place }) {
  const page = Math.max(1, Number(place.query.get('page') ?? 1) || 1);
  const user = place.query.get('user') ?? '';
  const loaded = useLoad(`audit ${page} ${user}`, () =>
    client.call('GET /v1/admin/audit', { query: { page, limit: LIMIT, ...(user !== '' && { user }) } }),
  );
  return (
    <Page title="Audit" note={user !== '' && <a href="#/audit">All accounts</a>}>
      <Content of={loaded}>
        {({ items, total }) =>
          items.length === 0 ? (
            <Empty>No administrator has done anything yet.</Empty>
          ) : (
            <>
              <Table label="Audit" head={['When', 'Who', 'What', 'Account', 'In particular']}>
                {items.map(({ id, at: time, by, action, userId, detail }) => (
                  <tr key={id}>
                    <td class="quiet">{at(time)}</td>
                    <td>{by === 'command-line' ? 'command line' : link(by)}</td>
                    <td>{action}</td>
                    <td>{userId === null ? '–' : link(userId)}</td>
                    <td class="value">
                      {Object.entries(detail)
                        .map(([name, value]) => `${name}: ${value}`)
                        .join(', ')}
                    </td>
                  </tr>
                ))}
              </Table>
              <Pager page={page} limit={LIMIT} total={total} onPage={(next) => go('audit', { user, page: next })} />
            </>
          )
        }
      </Content>
    </Page>
  );
}

const link = (id: string) => (
  <a href={`#/users/${encodeURIComponent(id)}`} title={id}>
    <code>{id.slice(0, 8)}</code>
  </a>
);
