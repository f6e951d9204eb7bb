/** A file's text (Vite). */
declare module '*?raw' {
  const text: string;
  export default text;
}

/** All files that match (Vite). */
interface ImportMeta {
  glob: <T>(pattern: string, options: { query: '?raw'; import: 'default'; eager: true }) => Record<string, T>;
}
