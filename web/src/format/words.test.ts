import { expect, it } from 'vitest';

import { egressWords, fieldWords, limitWords, operationWords, quotaWords, sentence, wantedWords } from './words';

it('writes each limit in its unit', () => {
  const cases: [string, unknown, string][] = [
    ['cpu_millis', 1500, '1.5'], ['memory_bytes', 1 << 30, '1 GiB'], ['swap_bytes', 0, 'none'], ['io_read_bps', 1 << 20, '1 MiB/s'], ['io_write_iops', 50, '50/s'],
    ['network_egress_bits', 1_000_000, '1 Mbit/s'], ['freeze_after', 900, '15m'], ['stop_after', null, 'never'], ['inodes', null, 'none'], ['profile', 'lab', 'lab'],
    ['egress', { list: ['192.0.2.0/24'] }, 'only 192.0.2.0/24'],
  ];
  for (const [name, value, words] of cases) expect(limitWords(name, value), name).toBe(words);
});

it('has words for what it was not told of', () => {
  expect(sentence('NotAsWanted')).toBe('Not as wanted');
  expect(fieldWords('some_new_limit')).toBe('Some new limit');
  expect(operationWords({ kind: 'berth_teleport' as never, state: 'running' })).toBe('Berth teleport:');
  expect(operationWords({ kind: 'berth_start', state: 'succeeded' })).toBe('Started the berth of');
  expect(egressWords({ other: 1 } as never)).toBe('unknown');
});

it('says the quota in one line', () => {
  expect(quotaWords({ cpu_millis: 1000, memory_bytes: 2 ** 31, pids: 1024, disk_bytes: 10 * 2 ** 30 })).toBe('1 CPU, 2 GiB memory, 1\u202f024 processes, 10 GiB disk');
});

it('says what is wanted only while it is not so', () => {
  expect(wantedWords({ wanted: 'running', state: 'running' })).toBeUndefined();
  expect(wantedWords({ wanted: 'deleted', state: 'running' })).toBe('is being removed');
});
