import { expect, it } from 'vitest';

import type { Policy } from '../api/types';
import { policyChange, policyErrors, policyFields } from './policy';

const POLICY: Policy = {
  home: 'rw', paths: [{ path: '/srv/data', read_only: true }], ports: { first: 1024, last: 65535 }, ports_open_to: 'user', freeze_after: 900, stop_after: null,
  egress: { list: ['192.0.2.0/24', '198.51.100.0/24'] }, restart: 'on_failure',
};

it('comes back as it was', () => {
  const fields = policyFields(POLICY);
  expect(fields).toMatchObject({ ports: '1024-65535', freeze_after: '15m', stop_after: 'never', egress: '192.0.2.0/24, 198.51.100.0/24', paths: '/srv/data:ro' });
  expect(policyErrors(fields)).toEqual({});
  const empty = Object.fromEntries(Object.keys(fields).map((name) => [name, ''])) as typeof fields;
  expect(policyChange(empty, fields)).toEqual(POLICY);
  expect(policyChange(fields, fields)).toEqual({});
});

it('says what is wrong', () => {
  const fields = { ...policyFields(undefined), ports: '80-90', freeze_after: 'soon', egress: 'moon', paths: 'relative' };
  expect(Object.keys(policyErrors(fields))).toEqual(['ports', 'freeze_after', 'egress', 'paths']);
});
