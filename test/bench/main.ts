import { parseArgs } from 'node:util';

import { QUESTIONS } from './questions/index.ts';
import type { Question, Report } from './question.ts';
import { tableOf } from './support/table.ts';

const NAMES = QUESTIONS.map(({ name }) => name).join(', ');

const HELP = `npm run bench [-- QUESTION… [--json] [--rounds N] [--only PATTERN]]

Asks the questions named, or all of them, and prints a table for each. Progress goes to stderr.

Questions:
${QUESTIONS.map(({ name, asks }) => `  ${name}  ${asks}`).join('\n')}

Options:
  --json       prints only the figures, one question a line (use npm run -s bench)
  --rounds N   rounds of each load, in place of each question's own number: 1 for a look, more for steadier figures
  --only PATTERN
               asks memory about the cases whose names match this regular expression
  --help       prints this

Environment:
  BENCH_REDIS_URL   a Redis of your own behind the gateway, such as redis://127.0.0.1:6379, in place of a redis-server of the
                    bench's own, or of the embedded engine
`;

async function main(argv: string[]): Promise<number> {
  let json: boolean;
  let rounds: number | undefined;
  let only: RegExp | undefined;
  let asked: readonly Question[];
  try {
    const { values, positionals } = parseArgs({
      args: argv,
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        only: { type: 'string' },
        help: { type: 'boolean', default: false, short: 'h' },
      },
    });
    if (values.help) {
      process.stdout.write(HELP);
      return 0;
    }
    ({ json } = values);
    if (values.rounds !== undefined) rounds = roundsOf(values.rounds);
    if (values.only !== undefined) only = new RegExp(values.only);
    asked = positionals.length === 0 ? QUESTIONS : positionals.map(questionOf);
  } catch (error) {
    process.stderr.write(`bench: ${(error as Error).message.split('\n')[0]}\n`);
    return 2;
  }

  let status = 0;
  for (const question of asked) {
    const startMs = performance.now();
    const seconds = () => ((performance.now() - startMs) / 1_000).toFixed(0).padStart(3);
    let report: Report;
    try {
      report = await question.run((line) => process.stderr.write(`${question.name} ${seconds()} s  ${line}\n`), {
        rounds,
        only,
      });
    } catch (error) {
      process.stderr.write(`bench: ${question.name}: ${(error as Error).message}\n`);
      return 1;
    }
    process.stdout.write(
      json ? `${JSON.stringify(report)}\n` : `\n${question.asks}\n${tableOf(report)}\n${question.setUp}\n\n`,
    );
    if (report.cases.some(({ failed }) => failed !== undefined)) status = 1;
  }
  return status;
}

function roundsOf(text: string): number {
  if (!/^[1-9]\d{0,2}$/.test(text)) throw new Error(`--rounds takes a number from 1 to 999, not "${text}"`);
  return Number(text);
}

function questionOf(name: string): Question {
  const question = QUESTIONS.find((candidate) => candidate.name === name);
  if (question === undefined) throw new Error(`there is no question "${name}" (there is: ${NAMES})`);
  return question;
}

// An end that lets what was started be stopped.
process.once('SIGINT', () => process.exit(130));
process.once('SIGTERM', () => process.exit(143));
process.exitCode = await main(process.argv.slice(2));
