import { useRef, useState } from 'hono/jsx/dom';
import type { Child } from 'hono/jsx';

import { useEffect } from './effect.ts';
import { describe } from './session.ts';
import type { Loaded } from './load.ts';

type Tone = 'neutral' | 'good' | 'warning' | 'bad' | 'accent';

/** A state in a word. Colour alone never carries it. */
export function Tag({ tone = 'neutral', children }: { tone?: Tone; children?: Child }) {
  return <span class={`tag ${tone}`}>{children}</span>;
}

export function Page({ title, note, children }: { title: string; note?: Child; children?: Child }) {
  useEffect(() => {
    document.title = `${title} · Gatehouse`;
  }, [title]);
  return (
    <>
      <header class="page">
        <h1 tabindex={-1}>{title}</h1>
        {note}
      </header>
      {children}
    </>
  );
}

export function Empty({ children }: { children?: Child }) {
  return <p class="empty">{children}</p>;
}

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  return (
    <div class="failure" role="alert">
      <p>{describe(error)}</p>
      {retry !== undefined && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** A page's data, or why there are none. Former data stay while the server cannot be reached. */
export function Content<T>({ of, children }: { of: Loaded<T>; children: (data: T) => Child }) {
  if (of.data !== undefined) {
    return (
      <>
        {of.error !== undefined && <Failure error={of.error} retry={of.reload} />}
        {children(of.data)}
      </>
    );
  }
  if (of.error !== undefined) return <Failure error={of.error} retry={of.reload} />;
  return (
    <p class="loading" role="status">
      Loading …
    </p>
  );
}

export function Pager({
  page,
  limit,
  total,
  onPage,
}: {
  page: number;
  limit: number;
  total: number;
  onPage: (page: number) => void;
}) {
  const pages = Math.max(1, Math.ceil(total / limit));
  const format = new Intl.NumberFormat('en');
  const [first, last] = [Math.min(total, (page - 1) * limit + 1), Math.min(total, page * limit)];
  return (
    <nav class="pager" aria-label="Pages">
      <span>
        {format.format(first)}–{format.format(last)} of {format.format(total)}
      </span>
      <button type="button" disabled={page <= 1} onClick={() => onPage(1)}>
        First
      </button>
      <button type="button" disabled={page <= 1} onClick={() => onPage(page - 1)}>
        Previous
      </button>
      <button type="button" disabled={page >= pages} onClick={() => onPage(page + 1)}>
        Next
      </button>
      <button type="button" disabled={page >= pages} onClick={() => onPage(pages)}>
        Last
      </button>
    </nav>
  );
}

/** A table that scrolls by itself where it is wider than the page. */
export function Table({ label, head, children }: { label: string; head: readonly Child[]; children?: Child }) {
  return (
    <div class="scroll" tabindex={0} role="region" aria-label={label}>
      <table>
        <thead>
          <tr>
            {head.map((cell) => (
              <th scope="col">{cell}</th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}

interface Question {
  title: string;
  text: string;
  action: string;
  isDangerous?: boolean;
}

let put: (question: Question & { answer: (isYes: boolean) => void }) => void = () => undefined;

/** Asks before something that cannot be undone. */
export const confirmed = (question: Question): Promise<boolean> =>
  new Promise((answer) => put({ ...question, answer }));

/** Where questions are put. Once in a page. */
export function Questions() {
  const [asked, setAsked] = useState<(Question & { answer: (isYes: boolean) => void }) | undefined>(undefined);
  const dialog = useRef<HTMLDialogElement>(null);
  put = setAsked;
  useEffect(() => {
    if (asked !== undefined && dialog.current?.open === false) dialog.current.showModal();
  }, [asked]);
  if (asked === undefined) return <></>;
  const close = (isYes: boolean) => {
    dialog.current?.close();
    setAsked(undefined);
    asked.answer(isYes);
  };
  return (
    <dialog ref={dialog} aria-labelledby="question" onCancel={() => close(false)}>
      <h2 id="question">{asked.title}</h2>
      <p>{asked.text}</p>
      <div class="actions">
        <button type="button" onClick={() => close(false)}>
          Cancel
        </button>
        <button type="button" class={asked.isDangerous === true ? 'danger' : 'primary'} onClick={() => close(true)}>
          {asked.action}
        </button>
      </div>
    </dialog>
  );
}

let show: (text: string) => void = () => undefined;

/** Says what has been done. */
export const say = (text: string): void => show(text);

/** Where that is said. Once in a page. */
export function Sayings() {
  const [text, setText] = useState('');
  show = setText;
  useEffect(() => {
    if (text === '') return undefined;
    const timer = setTimeout(() => setText(''), 6_000);
    return () => clearTimeout(timer);
  }, [text]);
  return (
    <div class={text === '' ? 'saying' : 'saying shown'} role="status" aria-live="polite">
      {text}
    </div>
  );
}

/** Runs an action and reports its outcome. @returns whether it succeeded */
export async function act(work: () => Promise<unknown>, done: string): Promise<boolean> {
  try {
    await work();
    say(done);
    return true;
  } catch (error) {
    say(describe(error));
    return false;
  }
}

/** The value of a form's field, as it was typed. */
export function typedIn(form: HTMLFormElement, name: string): string {
  const value = new FormData(form).get(name);
  return typeof value === 'string' ? value : '';
}

/** {@link typedIn} without the space around it. */
export const fieldOf = (form: HTMLFormElement, name: string): string => typedIn(form, name).trim();
