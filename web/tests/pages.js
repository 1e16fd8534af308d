// Every page of the dashboard: for pictures, and for what holds on all of them.
export const PAGES = [
  { name: 'overview', path: '/', heading: 'Overview' },
  { name: 'berths', path: '/berths', heading: 'Berths' },
  { name: 'berth', path: (user) => `/berths/${user}`, heading: (user) => user },
  { name: 'berth-activity', path: (user) => `/berths/${user}/activity`, heading: (user) => user },
  { name: 'berth-logs', path: (user) => `/berths/${user}/logs`, heading: (user) => user },
  { name: 'requests', path: '/requests', heading: 'Requests' },
  { name: 'groups', path: '/groups', heading: 'Groups' },
  { name: 'profiles', path: '/profiles', heading: 'Profiles' },
  { name: 'images', path: '/images', heading: 'Images' },
  { name: 'audit', path: '/audit', heading: 'Audit trail' },
  { name: 'settings', path: '/settings', heading: 'Settings' },
  { name: 'missing', path: '/berths/nobody.here', heading: 'nobody.here' },
];

/** The pages of a user without a role. */
export const OWN_PAGES = [
  { name: 'mine', path: '/', heading: 'My berth' },
  { name: 'mine-activity', path: '/activity', heading: 'Activity' },
  { name: 'mine-settings', path: '/settings', heading: 'Settings' },
];

export function resolve(page, user) {
  const of = (value) => (typeof value === 'function' ? value(user) : value);
  return { name: page.name, path: of(page.path), heading: of(page.heading) };
}

/** The page is there and has what it shows. */
export async function arrive(page, base, { path, heading }) {
  await page.goto(base + path);
  await page.getByRole('heading', { level: 1, name: heading, exact: true }).waitFor({ timeout: 15_000 });
  await page.waitForFunction(() => !document.querySelector('.waiting'), undefined, { timeout: 15_000 });
}
