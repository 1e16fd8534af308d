import { expect, it } from 'vitest';

import type { Limits } from '../api/types';
import { allFields, change, fieldErrors, filled, noFields, ownFields, readField, undoing } from './limits';

const GIB = 2 ** 30;
const LIMITS: Limits = { cpu_millis: 1500, cpu_weight: 100, memory_bytes: 4 * GIB, swap_bytes: 0, pids: 512, disk_bytes: 20 * GIB, io_read_bps: 2 ** 20 };

it('shows only what is a berth’s own, and of a profile everything', () => {
  expect(ownFields(LIMITS, ['pids', 'io_read_bps', 'io_write_bps'])).toEqual({ ...noFields(), pids: '512', io_read_bps: '1m', io_write_bps: 'none' });
  expect(allFields(LIMITS)).toMatchObject({ cpu_millis: '1.5', memory_bytes: '4g', swap_bytes: 'none', inodes: 'none' });
});

it('asks for what differs, and for the profile’s where a field was emptied', () => {
  const before = ownFields(LIMITS, ['pids', 'cpu_millis']);
  expect(change(before, before)).toEqual({});
  expect(change(before, { ...before, pids: '', memory_bytes: '8g', swap_bytes: 'none' })).toEqual({ pids: null, memory_bytes: 8 * GIB, swap_bytes: 0 });
  // Written otherwise is not changed.
  expect(change(before, { ...before, cpu_millis: '1,500' })).toEqual({});
});

it('finds the way back', () => {
  expect(undoing({ pids: 600, memory_bytes: 8 * GIB, io_write_bps: 5 }, LIMITS, ['pids', 'io_write_bps'])).toEqual({ pids: 512, memory_bytes: null, io_write_bps: 0 });
});

it('says what is wrong in which field, and asks for nothing of it', () => {
  const fields = { ...noFields(), memory_bytes: 'much', pids: 'none', disk_bytes: '10g' };
  expect(Object.keys(fieldErrors(fields))).toEqual(['memory_bytes', 'pids']);
  expect(filled(fields)).toEqual({ disk_bytes: 10 * GIB });
  expect(readField('swap_bytes', ' NONE ')).toEqual({ value: 0 });
});
