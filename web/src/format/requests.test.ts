import { expect, it } from 'vitest';

import { amountsWords, localInput, readAmounts, typedAmount } from './requests';

const GIB = 2 ** 30;
const NONE = { disk_bytes: '', memory_bytes: '', cpu_millis: '', pids: '' };

it('tells more from at least', () => {
  expect(readAmounts({ ...NONE, disk_bytes: '+20g', cpu_millis: '4' })).toEqual({ amounts: { disk_bytes: { add: 20 * GIB }, cpu_millis: { to: 4000 } }, errors: {} });
  expect(amountsWords({ disk_bytes: { add: 20 * GIB }, cpu_millis: { to: 4000 }, pids: null })).toBe('disk +20 GiB, CPUs at least 4');
});

it('says what is wrong with what was typed', () => {
  expect(Object.keys(readAmounts({ ...NONE, disk_bytes: 'much', pids: '+0' }).errors)).toEqual(['disk_bytes', 'pids']);
});

it('comes back as it was typed', () => {
  for (const text of ['+20g', '1.5g']) {
    const { amounts } = readAmounts({ ...NONE, memory_bytes: text });
    expect(typedAmount('memory_bytes', amounts.memory_bytes)).toBe(text);
  }
  expect(typedAmount('cpu_millis', { add: 500 })).toBe('+0.5');
});

it('fills a field for a time in the zone of the reader', () => {
  const at = new Date(2026, 10, 30, 9, 5).getTime();
  expect(localInput(at)).toBe('2026-11-30T09:05');
});
