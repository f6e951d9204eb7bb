/** A Worker that receives the trace events of another one, and logs them for {@link spansIn}. */
export const SPAN_TAIL = `
export default {
  tailStream(onset) {
    // Some of the runtime's own attributes are bigints.
    const plain = (_, value) => (typeof value === 'bigint' ? Number(value) : value);
    const write = ({ event, spanContext }) => console.log('TRACE ' + JSON.stringify({ ...spanContext, event }, plain));
    write({ ...onset, spanContext: { ...onset.spanContext, spanId: onset.event.spanId } });
    return write;
  },
};
`;

interface TraceEvent {
  traceId: string;
  /** The span that the event is about; of `spanOpen`: its parent. */
  spanId: string;
  event:
    | { type: 'onset' }
    | { type: 'spanOpen'; name: string; spanId: string }
    | { type: 'attributes'; info: { name: string; value: unknown }[] }
    | { type: 'spanUpdate'; info: { type: 'name'; name: string } | { type: 'status'; status: { code: string } } }
    | { type: 'spanClose' | 'return' | 'outcome' | 'log' | 'exception' };
}

export interface TracedSpan {
  name: string;
  /** Name of the span around it; of the root: none. */
  in?: string;
  attributes: Record<string, unknown>;
  status?: string;
}

/** Spans by trace. Those of the runtime itself, such as `fetch`, are among them. */
export function spansIn(logs: readonly string[]): TracedSpan[][] {
  const traces = new Map<string, Map<string, TracedSpan & { parent?: string }>>();
  for (const line of logs) {
    if (!line.startsWith('TRACE ')) continue;
    const { traceId, spanId, event } = JSON.parse(line.slice(6)) as TraceEvent;
    const spans = traces.get(traceId) ?? new Map<string, TracedSpan & { parent?: string }>();
    traces.set(traceId, spans);
    const about = spans.get(spanId);
    if (event.type === 'onset') spans.set(spanId, { name: 'root', attributes: {} });
    else if (event.type === 'spanOpen') spans.set(event.spanId, { name: event.name, attributes: {}, parent: spanId });
    else if (about === undefined) continue;
    else if (event.type === 'attributes') for (const { name, value } of event.info) about.attributes[name] = value;
    else if (event.type === 'spanUpdate') {
      if (event.info.type === 'name') about.name = event.info.name;
      else about.status = event.info.status.code;
    }
  }
  return [...traces.values()].map((spans) =>
    [...spans.values()].map(({ name, attributes, status, parent }) => {
      const span: TracedSpan = { name, attributes };
      if (parent !== undefined) span.in = spans.get(parent)?.name ?? 'unknown';
      if (status !== undefined) span.status = status;
      return span;
    }),
  );
}
