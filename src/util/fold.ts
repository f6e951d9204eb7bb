/** Without the rule that a sigma at a word's end is another letter: a part of a word is searched for, too. */
const caseless = (text: string) => text.toUpperCase().toLowerCase().replaceAll('ς', 'σ');

/**
 * What spellings of one text have in common: letter case (ß and SS, ǅ and ǆ), composed and decomposed marks, wide and
 * ligature forms, invisible characters. Unicode's NFKC_Casefold (section 3.13), by what JavaScript has of it. Letters with
 * different marks stay different, and İ is an i with a dot above, as by Unicode's default.
 *
 * SQLite's `lower()` knows A to Z only: SQL never folds, it compares what was folded here.
 */
export function fold(text: string): string {
  const visible = text.normalize('NFKD').replaceAll(/\p{Default_Ignorable_Code_Point}/gu, '');
  // A second time: the first uncovers compatibility characters (ᾳ is αι), and those have case.
  return caseless(caseless(visible).normalize('NFKD')).normalize('NFKC');
}
