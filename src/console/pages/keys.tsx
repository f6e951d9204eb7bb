import { ago, at } from '../format.ts';
import { useLoad } from '../load.ts';
import { rotationOf } from '../rotation.ts';
import { client } from '../session.ts';
import type { KeySet } from '../session.ts';
import { Content, Page, Table, Tag } from '../ui.tsx';

const TITLES: Readonly<Record<string, string>> = {
  SIGNING_KEYS: 'Access tokens',
  REFRESH_KEYS: 'Refresh tokens',
  PEPPER_KEYS: 'Passwords',
};

export function Keys() {
  const loaded = useLoad('keys', () => client.call('GET /v1/admin/keys'));
  return (
    <Page title="Keys">
      <Content of={loaded}>
        {({ sets }) => (
          <>
            {sets.map((set) => (
              <section key={set.name}>
                <h2>
                  {TITLES[set.name] ?? set.name} <code>{set.name}</code>
                </h2>
                <Table label={`Keys of ${set.name}`} head={['Key', 'State', 'Since', 'Age in this state']}>
                  {set.keys.map(({ kid, state, since }) => (
                    <tr key={kid}>
                      <td>
                        <code>{kid}</code>
                      </td>
                      <td>
                        <Tag tone={state === 'active' ? 'good' : 'neutral'}>{state}</Tag>
                      </td>
                      <td class="quiet">{since === null ? 'unknown' : at(since)}</td>
                      <td class="quiet">{since === null ? '–' : ago(since).replace(' ago', '')}</td>
                    </tr>
                  ))}
                </Table>
                <p class="hint">{nextStep(set)}</p>
              </section>
            ))}
          </>
        )}
      </Content>
    </Page>
  );
}

function nextStep(set: KeySet) {
  const { step, safeAt } = set.next;
  const what = {
    publish: 'publish a next key, at any time',
    promote: 'make the next key the active one',
    drop: 'drop the retired keys',
  }[step];
  const isSafe = safeAt !== null && Date.parse(safeAt) <= Date.now();
  const when = safeAt === null ? '' : isSafe ? ', safe now' : `, not before ${at(safeAt)}`;
  const { command, afterwards } = rotationOf(set, location.hostname);
  return (
    <>
      Next step: {what}
      {when}. <code>{command}</code> {afterwards}
    </>
  );
}
