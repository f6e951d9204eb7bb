/** The data of the start screen. */
export interface Running {
  /** Base URL of the Worker. */
  url: string;
  /** Which Redis, and where it is reached. */
  redis: string;
  /** Which database, without its password. */
  database: string;
  isPostgres: boolean;
  /** Names that were added to .dev.vars at this start. */
  generated: readonly string[];
  startMs: number;
  /** Whether an account may sign in to the console. */
  hasAdmin: boolean;
}

const JSON_TYPE = `-H 'content-type: application/json'`;

/** The one screen of `npm run dev`. Its three commands work as pasted, one after the other or all at once. */
export function screen({ url, redis, database, isPostgres, generated, startMs, hasAdmin }: Running): string {
  const secrets = generated.length > 0 ? `.dev.vars, generated now: ${generated.join(', ')}` : '.dev.vars';
  return `
  Gatehouse runs at ${url}  (started in ${(startMs / 1000).toFixed(1)} s)

  API       ${url}/docs
  Console   ${url}/console
  Redis     ${redis}
  Database  ${database}
  Secrets   ${secrets}

  Register, log in, and read your account (a second time the registration responds with 409, the rest still works):

${tryOut(url).join('\n')}
${hasAdmin ? '' : firstAdmin(isPostgres)}
  Ctrl-C stops all of it.
`;
}

const firstAdmin = (isPostgres: boolean) => `
  No account can sign in to the console yet. This makes Ada, registered above, an administrator${isPostgres ? ' (it needs the same DATABASE_URL)' : ''}:

npm run admin -- grant ada@example.com
`;

/** Lines for a POSIX shell. Not indented: a terminal's selection would take the spaces along. */
export function tryOut(url: string): string[] {
  const credentials = `"email":"ada@example.com","password":"correct horse battery staple"`;
  const token = `node -pe 'JSON.parse(require("fs").readFileSync(0)).access_token'`;
  return [
    `curl -sw '\\n' ${url}/v1/auth/register ${JSON_TYPE} -d '{${credentials},"name":"Ada"}'`,
    `TOKEN=$(curl -s ${url}/v1/auth/login ${JSON_TYPE} -d '{${credentials}}' | ${token})`,
    `curl -sw '\\n' ${url}/v1/users/me -H "authorization: Bearer $TOKEN"`,
  ];
}
