/** Lower case without the rule for a sigma at a word's end, because a search may be for a part of a word. */
const caseless = (text: string) => text.toUpperCase().toLowerCase().replaceAll('ς', 'σ');

/**
 * One form for all spellings of a text. It removes differences of letter case (ß and SS, ǅ and ǆ), composed and decomposed marks, wide and
 * ligature forms, invisible characters: Unicode's NFKC_Casefold (section 3.13), as far as JavaScript supports it. Letters with
 * different marks stay different, and İ is an i with a dot above, as by Unicode's default.
 *
 * SQLite's `lower()` knows A to Z only: SQL never folds, it compares texts that were folded here.
 */
export function fold(text: string): string {
  const visible = text.normalize('NFKD').replaceAll(/\p{Default_Ignorable_Code_Point}/gu, '');
  // A second time: the first uncovers compatibility characters (ᾳ is αι), and those have case.
  return caseless(caseless(visible).normalize('NFKD')).normalize('NFKC');
}
