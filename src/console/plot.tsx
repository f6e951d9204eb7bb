import { useRef, useState } from 'hono/jsx/dom';
import uPlot from 'uplot';

import { useEffect } from './effect.ts';

/** One line of a plot. */
export interface Line {
  name: string;
  values: readonly (number | null)[];
  /** Name of a colour in the style sheet. */
  colour: string;
}

interface PlotProps {
  title: string;
  /** Formats a value, for the axis, the legend and screen readers. */
  format: (value: number) => string;
  /** Seconds since the epoch. */
  times: readonly number[];
  lines: readonly Line[];
  empty: string;
}

const HEIGHT = 150;

/** A time series. Its newest values stand beside its name, so that it can be read without the canvas. */
export function Plot({ title, format, times, lines, empty }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [theme, setTheme] = useState(0);
  const names = lines.map(({ name, colour }) => `${name} ${colour}`).join('\n');
  const hasData = lines.some(({ values }) => values.some((value) => value !== null && value !== 0));

  useEffect(() => {
    const media = matchMedia('(prefers-color-scheme: dark)');
    const change = () => setTheme((former) => former + 1);
    media.addEventListener('change', change);
    return () => media.removeEventListener('change', change);
  }, []);

  useEffect(() => {
    const element = place.current;
    if (element === null || !hasData) return undefined;
    const colour = (name: string) => getComputedStyle(element).getPropertyValue(`--${name}`).trim();
    const axis: uPlot.Axis = {
      stroke: colour('muted'),
      font: '11px system-ui, sans-serif',
      grid: { stroke: colour('line'), width: 1 },
      ticks: { show: false },
    };
    const made = new uPlot(
      {
        width: Math.max(200, element.clientWidth),
        height: HEIGHT,
        padding: [8, 4, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
        scales: { y: { range: (_, min, max) => [Math.min(0, min), max <= 0 ? 1 : max * 1.1] } },
        axes: [
          { ...axis, grid: { show: false }, size: 24, space: 60, values: (_, ticks) => ticks.map(clockOf) },
          { ...axis, size: 56, space: 28, values: (_, ticks) => ticks.map((tick) => format(tick)) },
        ],
        series: [
          {},
          ...lines.map(({ name, colour: own }): uPlot.Series => ({
            label: name,
            stroke: colour(own),
            width: 1.5,
            points: { show: true, size: 4, width: 0, fill: colour(own), filter: lonely },
          })),
        ],
      },
      dataOf(times, lines),
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() =>
      made.setSize({ width: Math.max(200, element.clientWidth), height: HEIGHT }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [names, theme, hasData]);

  useEffect(() => {
    plot.current?.setData(dataOf(times, lines));
  }, [times, lines]);

  return (
    <figure class="plot" aria-label={title}>
      <figcaption>
        <h2>{title}</h2>
        <ul class="legend">
          {lines.map(({ name, values, colour }) => (
            <li key={name}>
              <i class={`dot ${colour}`} aria-hidden="true" />
              {name} <b>{newest(values, format)}</b>
            </li>
          ))}
        </ul>
      </figcaption>
      {hasData ? <div class="canvas" ref={place} aria-hidden="true" /> : <p class="empty">{empty}</p>}
    </figure>
  );
}

/** Values between two gaps: a line shows nothing of them. */
function lonely({ data }: uPlot, series: number): number[] {
  const values = data[series] ?? [];
  return Array.from(values.keys()).filter(
    (at) => values[at] != null && values[at - 1] == null && values[at + 1] == null,
  );
}

const dataOf = (times: readonly number[], lines: readonly Line[]): uPlot.AlignedData => [
  [...times],
  ...lines.map(({ values }) => [...values]),
];

/** Of the last step that has ended: the present one is still being counted. */
function newest(values: readonly (number | null)[], format: (value: number) => string): string {
  const value = values.at(-2);
  return value === null || value === undefined ? '–' : format(value);
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
const clockOf = (seconds: number) => clock.format(new Date(seconds * 1_000));
