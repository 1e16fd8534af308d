import { expect, it } from 'vitest';

import { line } from './history';

const MINUTE = 60_000;

it('leaves a hole where nothing was measured, and none where a sample is late', () => {
  const points = [0, 1, 2, 4, 20, 21].map((minute) => ({ at: minute * MINUTE, value: minute }));
  const { at, values, limit } = line(points, (point) => point.value, 30);
  expect(values).toEqual([0, 1, 2, 4, null, 20, 21]);
  expect([...at].sort((a, b) => a - b)).toEqual(at);
  expect(limit).toBe(30);
});

it('takes what is nearly nothing', () => {
  expect(line([], () => 1)).toEqual({ at: [], values: [], limit: undefined });
  expect(line([{ at: 5000 }], () => null)).toEqual({ at: [5], values: [null], limit: undefined });
});
