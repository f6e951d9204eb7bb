import { stripVTControlCharacters } from 'node:util';

/** Lines that wrangler prints about itself at every start and reload. */
const CHATTER = [
  /^\[wrangler:(info|log|debug)\]/,
  /^⎔ /,
  /^🪵/,
  /^Using (secrets|vars) defined in /,
  /^Your Worker has access to the following bindings/,
  /^Binding\s+Resource/,
  /^env\.\w+ .*(local|remote|not supported)$/,
  /^Cloudflare collects anonymous telemetry/,
];

/** wrangler's frame around what the Worker logs with console.warn and console.error. */
const FRAME = /^\s*(?:▲ \[WARNING\]|✘ \[ERROR\]) (?=\{)/;

/** wrangler keeps requests waiting meanwhile, for ever if need be. */
const WAITING = 'The Worker does not build. Requests wait until it does:';
const BUILT_AGAIN = 'The Worker builds again, and runs with the change.';

/**
 * Picks from wrangler's output the lines that a developer wants: the Worker's own log, warnings and errors.
 *
 * Before wrangler says that it is ready its bare lines are its own; after that they are the Worker's. The Worker's log
 * is JSON, so such a line is shown at any time.
 */
export class WranglerLog {
  #ready = false;
  #blank = true;
  /** Below a warning or an error stand lines that explain it. */
  #explaining = false;
  #shownAny = false;
  #failed = false;
  readonly #hidden: string[] = [];

  /** Whether anything was shown. */
  get shownAny(): boolean {
    return this.#shownAny;
  }

  /** The last lines of unknown kind that were not shown, for when wrangler ends without an error. */
  get hidden(): readonly string[] {
    return this.#hidden;
  }

  /** @returns the line as it is to be shown, `undefined` when it is not */
  stdout(line: string): string | undefined {
    const plain = stripVTControlCharacters(line).trimEnd();
    if (plain.startsWith('[wrangler:info] Ready on ')) this.#ready = true;
    // wrangler prints this only after a successful reload.
    if (plain === '⎔ Local server updated and ready' && this.#failed) {
      this.#failed = false;
      return BUILT_AGAIN;
    }
    if (/^\[wrangler:(warn|error)\]/.test(plain)) this.#explaining = true;
    else if (!/^\s+at /.test(plain) && !/^\w*Error: /.test(plain)) this.#explaining = false;

    const wanted =
      this.#explaining || plain.startsWith('{') || (this.#ready && !CHATTER.some((own) => own.test(plain)));
    return this.#show(line, plain, wanted);
  }

  /** As {@link stdout}, for wrangler's standard error: all of it but the place of wrangler's log file. */
  stderr(line: string): string | undefined {
    const plain = stripVTControlCharacters(line).trimEnd();
    const failed = plain.startsWith('✘ [ERROR] Build failed');
    this.#failed ||= failed;
    return this.#show(
      FRAME.test(plain) ? plain.replace(FRAME, '') : failed && this.#ready ? `${WAITING}\n${line}` : line,
      plain,
      !CHATTER.some((own) => own.test(plain)),
    );
  }

  #show(line: string, plain: string, wanted: boolean): string | undefined {
    if (!wanted) {
      if (plain !== '' && !CHATTER.some((own) => own.test(plain))) this.#hidden.push(plain);
      if (this.#hidden.length > 10) this.#hidden.shift();
      return undefined;
    }
    // wrangler separates everything by blank lines; one is enough.
    const blank = plain === '';
    const repeated = blank && this.#blank;
    this.#blank = blank;
    this.#shownAny ||= !blank;
    return repeated ? undefined : line;
  }
}
