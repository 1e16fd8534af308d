import { expect, it } from 'vitest';

import { headroomWords } from './headroom';

const GIB = 2 ** 30;

it('says what is promised before and after, and what may be', () => {
  expect(headroomWords({ resource: 'memory_bytes', capacity: 16 * GIB, promised: 10 * GIB, after: 12 * GIB })).toBe('Memory: 12 GiB of the host’s 16 GiB promised with it, 10 GiB now.');
  expect(headroomWords({ resource: 'cpu_millis', capacity: 4000, allowed: 8000, promised: 1500, after: 2000 })).toBe('CPUs: 2 of the host’s 4 promised with it, 1.5 now, 8 allowed.');
});
