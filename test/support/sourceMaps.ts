interface ModuleNode {
  meta?: { code?: string };
}

interface ModuleGraph {
  getModuleById(id: string): ModuleNode | undefined;
  getModuleSourceMapById(id: string): unknown;
}

/** Vitest puts the map behind the code, in a form of its own that workerd's module runner does not look for. */
const VITEST = '\n//# vitestSourceMap=';
/** Vite reads the map from this comment. In two parts: otherwise tools take it for the comment of this file. */
const VITE = ['//# source', 'MappingURL=data:application/json;base64,'].join('');

/** Lets stack traces in workerd name the lines of the source, in place of those of the transformed code. */
export function mapStackTraces(): void {
  const graph = (globalThis as { __vitest_worker__?: { evaluatedModules?: ModuleGraph } }).__vitest_worker__
    ?.evaluatedModules;
  if (graph === undefined) throw new Error('Vitest has no module graph at this place any more');
  // All test files of a run share the graph.
  if (Object.hasOwn(graph, 'getModuleSourceMapById')) return;
  const ask = graph.getModuleSourceMapById.bind(graph);
  graph.getModuleSourceMapById = (id) => {
    const meta = graph.getModuleById(id)?.meta;
    const at = meta?.code?.lastIndexOf(VITEST) ?? -1;
    if (meta?.code !== undefined && at >= 0) {
      const map = Buffer.from(meta.code.slice(at + VITEST.length)).toString('base64');
      meta.code = `${meta.code.slice(0, at)}\n${VITE}${map}\n`;
    }
    return ask(id);
  };
}
