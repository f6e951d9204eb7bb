import type { Definition } from './definitions';

/** One series, ready to be written. */
export interface Sample {
  definition: Definition;
  labels: Readonly<Record<string, string>>;
  /** `[total]`, or `[sum, …counts by bucket]` of a histogram; sums of seconds in milliseconds. */
  values: readonly number[];
}

export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

/**
 * OpenTelemetry's names in Prometheus's form:
 * https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
 */
export function prometheusName({ name, unit, kind }: Definition): string {
  const base = `${name.replace(/[^\w:]/g, '_')}${unit === 's' ? '_seconds' : ''}`;
  return kind === 'counter' ? `${base}_total` : base;
}

/**
 * Prometheus's text format 0.0.4: https://prometheus.io/docs/instrumenting/exposition_formats/. `UNIT` lines belong to
 * OpenMetrics; parsers of the 0.0.4 format ignore them as comments.
 */
export function writeText(samples: readonly Sample[]): string {
  const families = new Map<Definition, Sample[]>();
  for (const sample of samples) families.set(sample.definition, [...(families.get(sample.definition) ?? []), sample]);
  const lines: string[] = [];
  for (const [definition, members] of families) {
    const name = prometheusName(definition);
    lines.push(`# HELP ${name} ${escapeHelp(definition.help)}`, `# TYPE ${name} ${definition.kind}`);
    if (definition.unit === 's') lines.push(`# UNIT ${name} seconds`);
    for (const member of members) lines.push(...linesOf(name, member));
  }
  return `${lines.join('\n')}\n`;
}

function linesOf(name: string, { definition, labels, values }: Sample): string[] {
  const pairs = Object.entries(labels).map(([label, value]) => `${label.replace(/\W/g, '_')}="${escapeValue(value)}"`);
  const of = (...more: string[]) => {
    const all = [...pairs, ...more];
    return all.length === 0 ? '' : `{${all.join(',')}}`;
  };
  if (definition.kind !== 'histogram') return [`${name}${of()} ${values[0] ?? 0}`];
  const { bounds = [], unit } = definition;
  const [sum = 0, ...counts] = values;
  let below = 0;
  const buckets = [...bounds, Infinity].map((bound, at) => {
    below += counts[at] ?? 0;
    return `${name}_bucket${of(`le="${bound === Infinity ? '+Inf' : bound}"`)} ${below}`;
  });
  const total = unit === 's' ? sum / 1_000 : sum;
  return [...buckets, `${name}_sum${of()} ${total}`, `${name}_count${of()} ${below}`];
}

const escapeHelp = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
const escapeValue = (text: string) => escapeHelp(text).replaceAll('"', '\\"');
