/** The pages that one may go to. */
import { requests } from '../core/requests.svelte';
import { session } from '../core/session.svelte';

export type Place = { href: string; label: string; count?: number };

export function visits(): Place[] {
  if (!session.staff) {
    return [
      { href: '/', label: 'My berth' },
      { href: '/activity', label: 'Activity' },
      { href: '/settings', label: 'Settings' },
    ];
  }
  const places: [boolean, Place][] = [
    [true, { href: '/', label: 'Overview' }],
    [session.can('list_berths'), { href: '/berths', label: 'Berths' }],
    [session.can('list_requests'), { href: '/requests', label: 'Requests', count: requests.open.length }],
    [session.can('list_rules'), { href: '/groups', label: 'Groups' }],
    [session.can('list_profiles'), { href: '/profiles', label: 'Profiles' }],
    [session.can('list_images'), { href: '/images', label: 'Images' }],
    [session.can('list_audit'), { href: '/audit', label: 'Audit' }],
    [true, { href: '/settings', label: 'Settings' }],
  ];
  return places.filter(([may]) => may).map(([, place]) => place);
}
