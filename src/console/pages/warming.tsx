import { useRef, useState } from 'hono/jsx/dom';

import { ago, count, span } from '../format.ts';
import { useLoad } from '../load.ts';
import { client } from '../session.ts';
import type { WarmingJob } from '../session.ts';
import { act, Content, Empty, Page, Table, Tag } from '../ui.tsx';

const TONES: Readonly<Record<string, 'good' | 'accent' | 'neutral'>> = { done: 'good', running: 'accent' };

export function Warming() {
  const loaded = useLoad('warming', () => client.call('GET /v1/admin/warming'), { everyMs: 2_000 });
  const [driven, setDriven] = useState<readonly string[]>([]);
  /** Jobs that this page must not continue. */
  const stopped = useRef(new Set<string>());

  /** Runs slice after slice until the run ends. Without this page the cron trigger continues, one slice a minute. */
  async function start(job: string): Promise<void> {
    stopped.current?.delete(job);
    setDriven((former) => [...former, job]);
    let isFirst = true;
    await act(async () => {
      for (;;) {
        const { state } = await client.call('POST /v1/admin/warming/{job}', {
          params: { job },
          query: { restart: isFirst },
        });
        isFirst = false;
        loaded.reload();
        if (state !== 'running' || stopped.current?.has(job)) return;
      }
    }, `${job} has run.`);
    setDriven((former) => former.filter((name) => name !== job));
  }
  async function stop(job: string): Promise<void> {
    stopped.current?.add(job);
    await act(() => client.call('DELETE /v1/admin/warming/{job}', { params: { job } }), `${job} stops.`);
    loaded.reload();
  }

  return (
    <Page title="Warming">
      <Content of={loaded}>
        {({ jobs }) =>
          jobs.length === 0 ? (
            <Empty>No jobs are declared in src/warming.ts.</Empty>
          ) : (
            <Table label="Warming jobs" head={['Job', 'Schedule', 'State', 'Progress', 'Last change', '']}>
              {jobs.map((job) => {
                const isRunning = job.state === 'running' || driven.includes(job.name);
                return (
                  <tr key={job.name}>
                    <td>
                      <b>{job.name}</b>
                    </td>
                    <td class="quiet">
                      {job.everySeconds === null ? 'on request' : `every ${span(job.everySeconds)}`}
                    </td>
                    <td>
                      <Tag tone={TONES[job.state] ?? 'neutral'}>{job.state}</Tag>
                    </td>
                    <td>{progressOf(job)}</td>
                    <td class="quiet">{job.updatedAt === undefined ? '–' : ago(job.updatedAt)}</td>
                    <td class="end">
                      <button type="button" disabled={isRunning} onClick={() => void start(job.name)}>
                        Start<span class="hidden"> {job.name}</span>
                      </button>
                      <button type="button" disabled={!isRunning} onClick={() => void stop(job.name)}>
                        Stop<span class="hidden"> {job.name}</span>
                      </button>
                    </td>
                  </tr>
                );
              })}
            </Table>
          )
        }
      </Content>
      <p class="hint">
        While this page is open, a run that you started goes on without a pause. Afterwards the cron trigger goes on
        with it, up to 100 items a minute, until it is done or stopped.
      </p>
    </Page>
  );
}

function progressOf({ done, failed = 0, total }: WarmingJob) {
  if (done === undefined) return <span class="quiet">not within a day</span>;
  const most = total ?? undefined;
  const text = `${count(done)}${most === undefined ? '' : ` of ${count(most)}`}${failed > 0 ? `, ${count(failed)} failed` : ''}`;
  return (
    <>
      {most !== undefined && most > 0 && (
        <progress value={Math.min(done + failed, most)} max={most} aria-hidden="true" />
      )}
      {text}
    </>
  );
}
