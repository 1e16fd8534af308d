/** Accounts of the host that hold a berth and are not as they should be. */
import { call, client } from '../api/client';
import type { Account, AccountAlarm } from '../api/types';
import { touches } from './live.svelte';
import { resource } from './resource.svelte';

export type Astray = { accounts: Account[]; alarms: AccountAlarm[] };

/** All pages of them, without those that are present. */
async function read(): Promise<Astray> {
  const accounts: Account[] = [];
  let [cursor, alarms]: [string | undefined, AccountAlarm[]] = [undefined, []];
  do {
    const page: { items: Account[]; alarms: AccountAlarm[]; next?: string | null } = await call(() => client.GET('/api/v1/accounts', { params: { query: { limit: 500, cursor } } }));
    accounts.push(...page.items.filter(({ state }) => state !== 'present' && state !== 'unknown'));
    alarms = page.alarms;
    cursor = page.next ?? undefined;
  } while (cursor);
  return { accounts, alarms };
}

export const astray = () => resource(read, { when: (changes) => touches(changes, 'account'), every: 300_000 });
