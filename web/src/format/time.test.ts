import { expect, it } from 'vitest';

import { duration, exact, lasting, relative } from './time';

const NOW = 1_790_000_000_000;

it('says the largest unit that fits', () => {
  const words = [0, 4, 5, 59, 60, 119, 3600, 86_399, 86_400, 86_400 * 29, 86_400 * 31, 86_400 * 800].map((seconds) => relative(NOW - seconds * 1000, NOW));
  expect(words).toEqual([
    'just now', 'just now', '5 seconds ago', '59 seconds ago', '1 minute ago', '1 minute ago', '1 hour ago', '23 hours ago', '1 day ago', '29 days ago',
    '1 month ago', '2 years ago',
  ]);
  expect(relative(NOW + 7_200_000, NOW)).toBe('in 2 hours');
});

it('takes a clock that is a little behind for now', () => {
  expect(relative(NOW + 2000, NOW)).toBe('just now');
});

it('shows calls in the unit that fits', () => {
  expect([0.4, 999, 1440, 61_000, 7_200_000].map(duration)).toEqual(['0 ms', '999 ms', '1.4 s', '1 min', '2 h']);
  expect(lasting(-5)).toBe('0 seconds');
});

it('gives the exact time, and never throws', () => {
  expect(exact(new Date(2026, 10, 3, 4, 5, 6).getTime())).toBe('2026-11-03 04:05:06');
  expect(exact(Number.NaN)).toBe('unknown');
});
