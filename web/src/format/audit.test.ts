import { expect, it } from 'vitest';

import { callWords, detailWords, since } from './audit';

it('reads periods of a link, and nothing else', () => {
  expect(since('7d', 1e12)).toBe(1e12 - 604_800_000);
  for (const text of ['', '7', 'd', '-1d', '99999d']) expect(since(text, 1e12), text).toBeUndefined();
});

it('says how a call ended', () => {
  expect([callWords({ outcome: 'answered', status: 201 }), callWords({ outcome: 'refused', status: 503 }), callWords({ outcome: 'cut' })]).toEqual(['201', '503, refused by Berth', 'cut off']);
});

it('says what was asked for in the units of limits', () => {
  expect(detailWords({ profile: 'lab', limits: { memory_bytes: 2 ** 30, cpu_millis: null }, start: true })).toBe('profile lab, memory 1 GiB, start yes');
  expect([detailWords(null), detailWords('x'), detailWords({})]).toEqual(['', '', '']);
});
