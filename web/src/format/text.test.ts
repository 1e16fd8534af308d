import { expect, it } from 'vitest';

import { Lines, logLine, matches, visible } from './text';

it('shows what would turn or hide text', () => {
  expect(visible('a\u202etxt.exe')).toBe('a\\u202etxt.exe');
  expect(visible('zero\u200bwidth\u0000')).toBe('zero\\u200bwidth\\u0000');
  expect(visible('<b>עברית</b> ü 🚢')).toBe('<b>עברית</b> ü 🚢');
});

it('bounds text and never cuts a character in two', () => {
  expect(visible('x'.repeat(300))).toHaveLength(257);
  expect(visible(`${'x'.repeat(9)}🚢`, 10)).toBe(`${'x'.repeat(9)}…`);
});

it('bounds a line of a log, and takes colours out of it', () => {
  expect(logLine('\u001b[31mred\u001b[0m\tx')).toBe('red\tx');
  const line = logLine('y'.repeat(1 << 20));
  expect(line.length).toBeLessThan(4100);
  expect(line).toContain('1044576 more characters');
});

it('puts lines together from pieces, however long they are', () => {
  const lines = new Lines(10);
  expect(lines.push('one\r\ntw')).toEqual(['one']);
  expect(lines.push('o\n\nthree')).toEqual(['two', '']);
  for (let i = 0; i < 1000; i += 1) expect(lines.push('z'.repeat(1000))).toEqual([]);
  expect(lines.push('\nnext')).toEqual(['threezzzzz (999995 more characters)']);
  expect(lines.end()).toBe('next');
});

it('finds all words in any order and case', () => {
  expect(matches('Alice running student', 'STUD ali')).toBe(true);
  expect(matches('Alice', 'bob')).toBe(false);
  expect(matches('anything', '')).toBe(true);
});
