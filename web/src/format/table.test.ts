import { expect, it } from 'vitest';

import type { Berth } from '../api/types';
import { attention, fullness } from './attention';
import { filtered, readSort, sorted, window, writeSort } from './table';

const GIB = 2 ** 30;

function berth(user: string, change: Partial<Berth> = {}): Berth {
  return {
    id: user, user, uid: 1000, profile: 'default', image: { digest: 'sha256:x', name: 'default' }, own_limits: [], wanted: 'present', state: 'running', docker_ready: true,
    limits: { cpu_millis: 1000, cpu_weight: 100, memory_bytes: GIB, swap_bytes: 0, pids: 100, disk_bytes: 10 * GIB },
    conditions: [], policy: {} as Berth['policy'], ports: [], created_at: 0, updated_at: 0, ...change,
  };
}

const ALL = [berth('bob', { state: 'failed', address: '10.213.0.12' }), berth('alice', { profile: 'lab', address: '10.213.0.3' }), berth('<b>eve</b>', { state: 'stopped' })];
const users = (list: Berth[]) => list.map(({ user }) => user);

it('filters by words, state and profile together', () => {
  const none = { text: '', state: '', profile: '' };
  expect(users(filtered(ALL, none))).toHaveLength(3);
  expect(users(filtered(ALL, { ...none, text: 'LAB ali' }))).toEqual(['alice']);
  expect(users(filtered(ALL, { ...none, state: 'attention' }))).toEqual(['bob']);
  expect(users(filtered(ALL, { text: '<b>', state: 'stopped', profile: 'default' }))).toEqual(['<b>eve</b>']);
});

it('sorts by what a column means, and by name within the same', () => {
  const figures = new Map([['alice', { cpu: 0.5 }], ['bob', { cpu: 1.5 }]]);
  expect(users(sorted(ALL, { by: 'user', down: false }, figures))).toEqual(['<b>eve</b>', 'alice', 'bob']);
  expect(users(sorted(ALL, { by: 'cpu', down: true }, figures))).toEqual(['bob', 'alice', '<b>eve</b>']);
  expect(users(sorted(ALL, { by: 'address', down: false }, figures))).toEqual(['<b>eve</b>', 'alice', 'bob']);
  expect(users(sorted(ALL, { by: 'state', down: false }, figures))).toEqual(['bob', 'alice', '<b>eve</b>']);
  expect(users(sorted(ALL, { by: 'pids', down: true }, figures))).toEqual(['<b>eve</b>', 'alice', 'bob']);
});

it('keeps the order in a link, and takes no other for one', () => {
  for (const text of ['', 'cpu', '-disk', '-user']) expect(writeSort(readSort(text))).toBe(text);
  expect(readSort('-nonsense')).toEqual({ by: 'user', down: false });
});

it('shows a window of rows that never leaves the list', () => {
  expect(window(0, 800, 40, 1000)).toEqual({ first: 0, last: 26 });
  expect(window(39_600, 800, 40, 1000)).toEqual({ first: 984, last: 1000 });
  expect(window(99_999, 800, 40, 3)).toEqual({ first: 2493, last: 3 });
});

it('finds what wants somebody, the worst first', () => {
  const disk = (used: number) => ({ usage: { disk_bytes: used * GIB, disk: { used_bytes: used * GIB, limit_bytes: 10 * GIB } } }) as Partial<Berth>;
  const list = [...ALL, berth('full', disk(9.5)), berth('half', disk(5)), berth('told', { conditions: [{ kind: 'Restarted', message: 'x', since: 0 }] }), berth('port', { conditions: [{ kind: 'PortTaken', message: 'port 8080 is taken', since: 0 }] })];
  const needs = attention(list, { healthy: false, checks: [{ name: 'nft', level: 'failed', detail: 'no nft' }, { name: 'x', level: 'ok', detail: '' }] });
  expect(needs.map(({ word }) => word)).toEqual(['Host', 'Failed', 'Disk nearly full', 'Port taken']);
  expect(fullness(berth('none'))).toBeUndefined();
});
