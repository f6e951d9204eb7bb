import { useState } from 'hono/jsx/dom';

import { useLoad } from '../load.ts';
import { client } from '../session.ts';
import { Content, Empty, Page, Table, Tag } from '../ui.tsx';

export function Settings() {
  const loaded = useLoad('settings', () => client.call('GET /v1/admin/settings'));
  const [text, setText] = useState('');
  const [isOwn, setIsOwn] = useState(false);
  return (
    <Page title="Settings">
      <div class="bar">
        <label class="grow">
          <span class="hidden">Filter by name</span>
          <input
            type="search"
            placeholder="Filter by name"
            value={text}
            onInput={(event: Event) => setText((event.currentTarget as HTMLInputElement).value)}
          />
        </label>
        <label class="check">
          <input
            type="checkbox"
            checked={isOwn}
            onChange={(event: Event) => setIsOwn((event.currentTarget as HTMLInputElement).checked)}
          />
          Only those that are set
        </label>
      </div>
      <Content of={loaded}>
        {({ settings }) => {
          const wanted = text.trim().toUpperCase();
          const shown = settings.filter(({ name, isDefault }) => name.includes(wanted) && !(isOwn && isDefault));
          return shown.length === 0 ? (
            <Empty>No setting has such a name.</Empty>
          ) : (
            <Table label="Settings" head={['Name', 'Value', '']}>
              {shown.map(({ name, value, isDefault, isSecret }) => (
                <tr key={name}>
                  <td>
                    <code>{name}</code>
                  </td>
                  <td class="value">{value === null || value === '' ? <span class="quiet">–</span> : value}</td>
                  <td class="end">
                    {isSecret ? (
                      <Tag>secret</Tag>
                    ) : isDefault ? (
                      <span class="quiet">default</span>
                    ) : (
                      <Tag tone="accent">set</Tag>
                    )}
                  </td>
                </tr>
              ))}
            </Table>
          );
        }}
      </Content>
    </Page>
  );
}
