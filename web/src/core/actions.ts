/** What can be done with berths: at once and with a way back where the harm is small, after a question where it is not. */
import { call, client } from '../api/client';
import type { Berth } from '../api/types';
import Assign from '../dialogs/Assign.svelte';
import Power from '../dialogs/Power.svelte';
import Quota from '../dialogs/Quota.svelte';
import Rebuild from '../dialogs/Rebuild.svelte';
import Remove from '../dialogs/Remove.svelte';
import Suspend from '../dialogs/Suspend.svelte';
import { visible } from '../format/text';
import { plural } from '../format/units';
import type { Item } from '../ui/Menu.svelte';
import { modals } from './modals.svelte';
import { operations } from './operations.svelte';
import { session } from './session.svelte';
import { toasts } from './toasts.svelte';

export type PowerVerb = 'start' | 'stop' | 'restart' | 'resume';

const WORDS: Record<PowerVerb, { operation: string; failed: string }> = {
  start: { operation: 'start_berth', failed: 'could not be started' },
  stop: { operation: 'stop_berth', failed: 'could not be stopped' },
  restart: { operation: 'restart_berth', failed: 'could not be restarted' },
  resume: { operation: 'resume_berth', failed: 'could not be resumed' },
};

function request(verb: PowerVerb, user: string) {
  const init = { params: { path: { user } } };
  switch (verb) {
    case 'start':
      return client.POST('/api/v1/berths/{user}/start', init);
    case 'stop':
      return client.POST('/api/v1/berths/{user}/stop', init);
    case 'restart':
      return client.POST('/api/v1/berths/{user}/restart', init);
    case 'resume':
      return client.POST('/api/v1/berths/{user}/resume', init);
  }
}

/** Several at a time, so that a browser's few connections are not taken by them. */
export async function each<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<{ failed: { item: T; error: unknown }[] }> {
  const rest = [...items];
  const failed: { item: T; error: unknown }[] = [];
  await Promise.all(
    Array.from({ length: 3 }, async () => {
      for (let item = rest.shift(); item !== undefined; item = rest.shift()) {
        try {
          await work(item);
        } catch (error) {
          failed.push({ item, error });
        }
      }
    }),
  );
  return { failed };
}

/** Asks for it, for one or many; without a question. */
export async function power(verb: PowerVerb, users: readonly string[]): Promise<void> {
  const one = users.length === 1 ? users[0]! : undefined;
  const back = verb === 'stop' ? { label: 'Start again', run: () => void power('start', users) } : undefined;
  const { failed } = await each(users, async (user) => {
    const accepted = await call(() => request(verb, user));
    operations.follow(accepted.operation, one === undefined ? { done: '' } : { action: back });
  });
  for (const { item, error } of failed.slice(0, 3)) toasts.failed(error, `The berth of ${visible(item, 64)} ${WORDS[verb].failed}`);
  if (one === undefined && failed.length < users.length) {
    const verbs = { start: 'being started', stop: 'being stopped', restart: 'being restarted', resume: 'being resumed' };
    toasts.done(`${plural(users.length - failed.length, 'berth is', 'berths are')} ${verbs[verb]}.`, back);
  }
}

/** Whether stopping it ends something that runs. */
function busy(berth: Berth): boolean {
  return (berth.state === 'running' || berth.state === 'frozen') && (berth.running_containers ?? 0) > 0;
}

/** The same with a question where containers would end. */
export function ask(verb: PowerVerb, list: readonly Berth[]): void {
  const users = list.map((berth) => berth.user);
  if ((verb === 'stop' || verb === 'restart') && (list.length > 1 || list.some(busy))) {
    modals.open(Power, { verb, berths: list });
  } else {
    void power(verb, users);
  }
}

export const suspend = (list: readonly Berth[]) => modals.open(Suspend, { users: list.map((berth) => berth.user) });
export const rebuild = (berth: Berth) => modals.open(Rebuild, { user: berth.user });
export const remove = (list: readonly Berth[]) => modals.open(Remove, { users: list.map((berth) => berth.user) });
export const quota = (list: readonly Berth[]) => modals.open(Quota, { berths: list });
export const assign = (user = '') => modals.open(Assign, { name: user });

/** What can be done with this one now, the likeliest first. */
export function possible(berth: Berth): { main: Item[]; more: Item[] } {
  const may = (operation: string) => session.can(operation, berth.user);
  const [main, more]: [Item[], Item[]] = [[], []];
  const gone = berth.wanted === 'deleted';
  const up = berth.state === 'running' || berth.state === 'frozen' || berth.state === 'starting';
  if (!gone && !berth.suspended) {
    if (may('start_berth') && !up) main.push({ label: 'Start', run: () => ask('start', [berth]) });
    if (may('restart_berth') && up) main.push({ label: 'Restart', run: () => ask('restart', [berth]) });
    if (may('stop_berth') && up) main.push({ label: 'Stop', run: () => ask('stop', [berth]) });
  }
  if (!gone && berth.suspended && may('resume_berth')) main.push({ label: 'Resume', run: () => ask('resume', [berth]) });
  if (!gone && may('change_berth')) main.push({ label: 'Set quota', run: () => quota([berth]) });
  if (!gone && !berth.suspended && may('suspend_berth')) more.push({ label: 'Suspend…', run: () => suspend([berth]) });
  if (!gone && !berth.suspended && may('rebuild_berth')) more.push({ label: 'Rebuild…', run: () => rebuild(berth), danger: true });
  if (may('delete_berth')) more.push({ label: 'Remove…', run: () => remove([berth]), danger: true, disabled: gone });
  return { main, more };
}
