import { describe, expect, test } from 'vitest';

import { fold } from '../../../src/util/fold';

describe('fold', () => {
  test.each([
    ['É', 'é'],
    ['É', 'e\u0301'],
    ['ÉCOLE', 'e\u0301cole'],
    ['Straße', 'STRASSE'],
    ['straẞe', 'strasse'],
    ['İ', 'i\u0307'],
    ['İSTANBUL', 'i̇stanbul'],
    ['ǅ', 'ǆ'],
    ['ǅ', 'Ǆ'],
    ['ǅungla', 'DŽUNGLA'],
    ['ΟΔΟΣ', 'οδος'],
    ['ΟΔΟΣ', 'οδοσ'],
    ['ΐ', 'Ϊ́'],
    ['ᾳ', 'ΑΙ'],
    ['ﬁne', 'FINE'],
    ['Ａｄａ', 'ada'],
    ['Åse', 'Å'.concat('SE')],
    ['q\u0323\u0307', 'q\u0307\u0323'],
    ['한글', '한글'.normalize('NFD')],
    ['K', 'k'],
    ['co\u00adop', 'COOP'],
    ['a\u200dda', 'ADA'],
  ])('%s and %s are one', (one, other) => expect(fold(one)).toBe(fold(other)));

  test.each([
    ['e', 'é'],
    ['i', 'i\u0307'],
    ['o', 'ø'],
    ['n', 'ñ'],
    ['и', 'й'],
  ])('%s and %s are two', (one, other) => expect(fold(one)).not.toBe(fold(other)));

  test('of every character: stable, and the same for each of its cases and normal forms', () => {
    const wrong: string[] = [];
    for (let point = 0; point <= 0x10ffff; point += 1) {
      if (point >= 0xd800 && point <= 0xdfff) continue;
      const char = String.fromCodePoint(point);
      const folded = fold(char);
      const spellings = [folded, char.toLowerCase(), char.toUpperCase(), char.normalize('NFD')];
      spellings.push(char.normalize('NFC'), char.normalize('NFKC'), char.toUpperCase().toLowerCase());
      if (spellings.some((spelling) => fold(spelling) !== folded)) wrong.push(point.toString(16));
    }
    expect(wrong).toEqual([]);
  });

  test('of A to Z is that of SQLite’s lower(), so that rows without their text are found by these', () => {
    const ascii = String.fromCodePoint(...Array.from({ length: 95 }, (_, index) => index + 32));
    expect(fold(ascii)).toBe(ascii.toLowerCase());
  });
});
