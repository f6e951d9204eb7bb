import { client } from '../session.ts';
import { act, confirmed, fieldOf, Page } from '../ui.tsx';

const KINDS = [
  {
    name: 'namespaces',
    title: 'A namespace',
    label: 'Names, separated by commas',
    hint: 'All entries of a query, such as “orders”. The app’s own lists of users are “users” and “users-found”.',
  },
  { name: 'tags', title: 'A tag', label: 'Tags, separated by commas', hint: 'All entries that carry the tag.' },
  {
    name: 'users',
    title: 'A user',
    label: 'User ids, separated by commas',
    hint: 'The cached account, and all entries that belong to the user.',
  },
] as const;

export function Cache() {
  async function invalidate(event: Event, kind: (typeof KINDS)[number]['name']): Promise<void> {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const names = fieldOf(form, 'names')
      .split(',')
      .flatMap((name) => name.trim() || []);
    if (names.length === 0) return;
    const question = {
      title: 'Invalidate?',
      text: `The next reads of ${names.join(', ')} go to the database.`,
      action: 'Invalidate',
    };
    if (!(await confirmed(question))) return;
    const work = () => client.call('POST /v1/admin/cache/invalidate', { body: { [kind]: names } });
    if (await act(work, 'Invalidated.')) form.reset();
  }

  return (
    <Page title="Cache">
      <div class="cards">
        {KINDS.map(({ name, title, label, hint }) => (
          <section key={name}>
            <h2>{title}</h2>
            <form class="bar" onSubmit={(event: Event) => void invalidate(event, name)}>
              <label class="grow">
                {label}
                <input name="names" required autocomplete="off" spellcheck={false} />
              </label>
              <button type="submit">Invalidate</button>
            </form>
            <p class="hint">{hint}</p>
          </section>
        ))}
      </div>
      <p class="hint">Hit ratios by namespace are on the overview.</p>
    </Page>
  );
}
