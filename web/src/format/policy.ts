/** A profile's policy in fields of text, and back. */
import type { Egress, Policy } from '../api/types';
import { parseSpan, span } from './units';

export type PolicyFields = { home: string; ports_open_to: string; restart: string; ports: string; freeze_after: string; stop_after: string; egress: string; paths: string };

export function policyFields(policy: Policy | undefined): PolicyFields {
  return {
    home: policy?.home ?? 'rw',
    ports_open_to: policy?.ports_open_to ?? 'user',
    restart: policy?.restart ?? 'on_failure',
    ports: policy?.ports ? `${policy.ports.first}-${policy.ports.last}` : 'none',
    freeze_after: span(policy?.freeze_after),
    stop_after: span(policy?.stop_after),
    egress: typeof policy?.egress === 'object' && policy.egress !== null ? (policy.egress as { list: string[] }).list.join(', ') : (policy?.egress ?? 'internet'),
    paths: policy?.paths.length ? policy.paths.map((path) => `${path.path}${path.read_only ? ':ro' : ''}`).join(', ') : 'none',
  };
}

type Read = { [K in keyof PolicyFields]: (text: string) => { value: unknown } | { error: string } };

const time = (text: string) => (/^\s*never\s*$/i.test(text) ? { value: null } : parseSpan(text));
const choice = (text: string) => ({ value: text });

const READ: Read = {
  home: choice,
  ports_open_to: choice,
  restart: choice,
  ports(text) {
    if (/^\s*none\s*$/i.test(text)) return { value: null };
    const match = /^\s*(\d{1,5})\s*-\s*(\d{1,5})\s*$/.exec(text);
    const [first, last] = [Number(match?.[1]), Number(match?.[2])];
    return match && first >= 1024 && first <= last && last <= 65535 ? { value: { first, last } } : { error: 'write two ports from 1024 on, as 8000-8999, or none' };
  },
  freeze_after: time,
  stop_after: time,
  egress(text) {
    const word = text.trim().toLowerCase();
    if (word === 'all' || word === 'internet' || word === 'none') return { value: word satisfies Egress };
    const list = text.split(/[\s,]+/).filter(Boolean);
    return list.length > 0 && list.length <= 64 && list.every((one) => /^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/.test(one)) ? { value: { list } } : { error: 'write all, internet, none, or up to 64 networks as 192.0.2.0/24' };
  },
  paths(text) {
    if (/^\s*(none)?\s*$/i.test(text)) return { value: [] };
    const list = text.split(',').map((one) => one.trim()).filter(Boolean);
    if (list.length > 16 || !list.every((one) => one.startsWith('/'))) return { error: 'write up to 16 absolute paths with commas between them' };
    return { value: list.map((one) => ({ path: one.replace(/:(ro|rw)$/, ''), read_only: one.endsWith(':ro') })) };
  },
};

export function policyErrors(fields: PolicyFields): Partial<Record<keyof PolicyFields, string>> {
  const errors: Partial<Record<keyof PolicyFields, string>> = {};
  for (const name of Object.keys(READ) as (keyof PolicyFields)[]) {
    const read = READ[name](fields[name]);
    if ('error' in read) errors[name] = read.error;
  }
  return errors;
}

/** What of the policy differs. */
export function policyChange(before: PolicyFields, after: PolicyFields): Partial<Policy> {
  const change: Record<string, unknown> = {};
  for (const name of Object.keys(READ) as (keyof PolicyFields)[]) {
    const read = READ[name](after[name]);
    if (after[name] !== before[name] && 'value' in read) change[name] = read.value;
  }
  return change as Partial<Policy>;
}
