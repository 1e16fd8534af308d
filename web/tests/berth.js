// An administrator's and a user's way through the dashboard, with the real server, node and berths. tests/tests/web.rs sets the stage:
// BERTH_PAGES, BERTH_ADMIN and BERTH_PASSWORD, BERTH_USER (an account without a berth), BERTH_LINK (words of a command that prints a one-time
// link as that user), BERTH_DOCKER (words before docker's own, as that user), BERTH_TAR (a root file system with busybox in it).
import { execFileSync } from 'node:child_process';

import { launch } from './browser.js';
import { check, listen, run } from './checks.js';

const { BERTH_PAGES: base, BERTH_ADMIN: admin, BERTH_PASSWORD: password, BERTH_USER: user } = process.env;
const words = (name) => JSON.parse(process.env[name]);
const execute = ([program, ...rest]) => execFileSync(program, rest, { encoding: 'utf8', timeout: 120_000 });

const browser = await launch();
const complaints = [];
let page;
let loads = 0;

async function fresh(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  page = await context.newPage();
  listen(page, complaints);
  page.on('load', () => (loads += 1));
  return context;
}

async function signIn() {
  await page.getByLabel('Name').fill(admin);
  await page.getByLabel('Password').fill(password);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
}

const state = (word) => page.locator('main').getByRole('status').getByText(word, { exact: true }).first();
// Not the word in a list of what can be chosen.
const inForce = () => page.locator(':not(option):text-is("In force")').first();
const toast = (text) => page.locator('.toast').filter({ hasText: text }).first();
let administrator;

const steps = [
  ['a wrong password is refused with words', async () => {
    administrator = await fresh();
    await page.goto(base);
    await page.getByLabel('Name').fill(admin);
    await page.getByLabel('Password').fill('not this one at all');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').getByText('You are not signed in').waitFor();
  }],
  ['an administrator signs in', signIn],
  ['a berth is assigned and gets ready without a reload', async () => {
    const before = loads;
    await page.getByRole('link', { name: 'Berths', exact: true }).click();
    await page.getByRole('button', { name: 'Assign a berth' }).click();
    const dialog = page.getByRole('dialog', { name: 'Assign a berth' });
    await dialog.getByLabel('User').fill(user);
    await dialog.getByText(/uid \d+, home/).waitFor();
    await dialog.getByLabel('CPUs', { exact: true }).fill('2');
    await dialog.getByLabel('Memory', { exact: true }).fill('1g');
    await dialog.getByLabel('Disk', { exact: true }).fill('4g');
    await dialog.getByRole('button', { name: 'Assign', exact: true }).click();
    await page.getByRole('heading', { level: 1, name: user }).waitFor();
    await state('Running').waitFor({ timeout: 90_000 });
    await page.getByText('Docker answers').waitFor({ timeout: 30_000 });
    check(loads === before, 'the page was loaded anew');
  }],
  ['docker ps in the terminal', async () => {
    await page.getByRole('link', { name: 'Terminal', exact: true }).click();
    const screen = page.getByTestId('terminal');
    await screen.locator('.xterm-helper-textarea').waitFor({ state: 'attached' });
    await page.waitForFunction(() => /[#$]/.test(document.querySelector('.xterm-rows')?.textContent ?? ''), undefined, { timeout: 30_000 });
    await screen.click();
    await page.keyboard.type('docker ps\n');
    await page.waitForFunction(() => /CONTAINER\s+ID/.test(document.querySelector('.xterm-rows')?.textContent ?? ''), undefined, { timeout: 30_000 });
    await page.keyboard.type('exit\n');
    await page.getByText('The shell has ended.').waitFor({ timeout: 20_000 });
  }],
  ['a quota is changed after a look at what it would do, and taken back', async () => {
    await page.getByRole('link', { name: 'Overview', exact: true }).last().click();
    await page.getByRole('button', { name: 'Set quota' }).click();
    const dialog = page.getByRole('dialog', { name: 'Set quota' });
    await dialog.getByLabel('Memory', { exact: true }).fill('1.5g');
    await dialog.getByRole('cell', { name: '1.5 GiB' }).waitFor();
    await dialog.getByRole('button', { name: 'Set', exact: true }).click();
    await toast('Changed the berth of').waitFor({ timeout: 30_000 });
    await page.getByText('of 1.5 GiB').first().waitFor();
    await toast('Changed the berth of').getByRole('button', { name: 'Undo' }).click();
    await page.getByText('of 1 GiB').first().waitFor({ timeout: 30_000 });
  }],
  ['what would be refused is said before', async () => {
    await page.getByRole('button', { name: 'Set quota' }).click();
    const dialog = page.getByRole('dialog', { name: 'Set quota' });
    await dialog.getByLabel('Memory', { exact: true }).fill('1m');
    await dialog.getByRole('alert').getByText('This would be refused').waitFor();
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
  }],
  ['a user comes by a one-time link, once', async () => {
    const link = execute(words('BERTH_LINK')).match(/https?:\S+/)[0];
    await fresh();
    await page.goto(link);
    await page.getByRole('heading', { level: 1, name: 'My berth' }).waitFor();
    check(!page.url().includes('link='), 'the secret stays in the address bar');
    const own = page;
    const other = await browser.newContext();
    page = await other.newPage();
    await page.goto(link);
    await page.getByRole('alert').getByText('You are not signed in').waitFor();
    await other.close();
    page = own;
  }],
  ['the user sees his own, and nothing of others', async () => {
    await page.getByText('What you use').waitFor();
    await page.getByText('DOCKER_HOST=unix://').waitFor();
    await page.goto(`${base}/profiles`);
    await page.getByRole('heading', { name: 'There is no such page' }).waitFor();
    await page.goto(`${base}/berths/root`);
    await page.getByRole('heading', { name: 'There is no such page' }).waitFor();
  }],
  ['his containers and their ports appear by themselves', async () => {
    await page.goto(base);
    await page.getByText('No published ports').waitFor();
    execute([...words('BERTH_DOCKER'), 'import', process.env.BERTH_TAR, 'busybox']);
    execute([...words('BERTH_DOCKER'), 'run', '-d', '--name', 'web', '-p', '18099:80', 'busybox', 'sleep', '600']);
    await page.getByRole('cell', { name: /^web/ }).first().waitFor({ timeout: 30_000 });
  }],
  ['what takes the disk is seen, and room is made', async () => {
    await page.getByRole('cell', { name: 'busybox:latest' }).first().waitFor({ timeout: 30_000 });
    await page.getByRole('button', { name: 'Make room' }).click();
    const dialog = page.getByRole('dialog', { name: 'Make room' });
    await dialog.getByLabel(/Images on which no container stands/).check();
    await dialog.getByRole('button', { name: 'Make room', exact: true }).click();
    await toast('free again').waitFor({ timeout: 60_000 });
  }],
  ['he asks for more', async () => {
    await page.getByRole('button', { name: 'Ask for more' }).click();
    const dialog = page.getByRole('dialog', { name: 'Ask for more' });
    await dialog.getByLabel('Disk').fill('+1g');
    await dialog.getByLabel('What for').fill('<b>a large</b> image');
    await dialog.getByRole('button', { name: 'Ask', exact: true }).click();
    await page.getByText('disk +1 GiB').waitFor();
  }],
  ['the administrator sees it without a reload, and approves', async () => {
    const own = page;
    page = administrator.pages()[0];
    const before = loads;
    await page.getByRole('link', { name: /^Requests/ }).click();
    await page.getByText('<b>a large</b> image').waitFor({ timeout: 20_000 });
    await page.getByRole('button', { name: /^Approve/ }).click();
    await page.getByRole('dialog', { name: 'Approve the request' }).getByRole('button', { name: 'Approve', exact: true }).click();
    await inForce().waitFor({ timeout: 60_000 });
    check(loads === before, 'the page was loaded anew');
    page = own;
    await inForce().waitFor({ timeout: 20_000 });
    await page.getByText(/(of|quota) 5 GiB/).first().waitFor({ timeout: 20_000 });
  }],
  ['a session that ends loses no half-filled form', async () => {
    page = administrator.pages()[0];
    await page.getByRole('link', { name: 'Berths', exact: true }).click();
    await page.getByRole('link', { name: user }).click();
    await page.getByRole('button', { name: 'Set quota' }).click();
    const dialog = page.getByRole('dialog', { name: 'Set quota' });
    await dialog.getByLabel('Processes').fill('777');
    await administrator.clearCookies();
    await dialog.getByRole('button', { name: 'Set', exact: true }).click();
    const again = page.getByRole('dialog', { name: 'Your session has ended' });
    await again.getByLabel('Password').fill(password);
    await again.getByRole('button', { name: 'Sign in' }).click();
    await toast('Changed the berth of').waitFor({ timeout: 30_000 });
    await page.getByText('of 777').first().waitFor();
  }],
  ['a berth is suspended with a reason, which its user sees; and resumed', async () => {
    await page.getByRole('button', { name: 'More', exact: true }).click();
    await page.getByRole('menuitem', { name: 'Suspend…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Suspend the berth' });
    await dialog.getByLabel('Reason').fill('maintenance of the pier');
    await dialog.getByRole('button', { name: 'Suspend' }).click();
    await state('Suspended').waitFor({ timeout: 30_000 });
    await page.getByText('maintenance of the pier').first().waitFor();
    await page.getByRole('button', { name: 'Resume' }).first().click();
    await state('Running').waitFor({ timeout: 30_000 });
  }],
  ['a berth gets a fresh root file system', async () => {
    await page.getByRole('button', { name: 'More', exact: true }).click();
    await page.getByRole('menuitem', { name: 'Rebuild…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Rebuild the berth' });
    await dialog.getByLabel('Delete images, containers and volumes too').check();
    check(await dialog.getByRole('button', { name: 'Rebuild and delete everything' }).isDisabled(), 'all can be deleted before the name is typed');
    await dialog.getByLabel('Delete images, containers and volumes too').uncheck();
    await dialog.getByRole('button', { name: 'Rebuild', exact: true }).click();
    await toast('Rebuilt the berth of').waitFor({ timeout: 60_000 });
    await state('Running').waitFor({ timeout: 30_000 });
  }],
  ['everything is in the audit trail', async () => {
    await page.getByRole('link', { name: 'Audit', exact: true }).click();
    for (const what of ['Create berth', 'Change berth', 'Suspend berth', 'Approve request']) await page.getByText(what, { exact: true }).first().waitFor({ timeout: 15_000 });
    await page.getByLabel('Path of the call').fill('/containers');
    await page.getByText(/POST \/containers\/create/).first().waitFor({ timeout: 20_000 });
    // A link to what is seen.
    await page.waitForURL(/path=(%2F|\/)containers/, { timeout: 20_000 });
  }],
  ['a berth is removed once its name is typed', async () => {
    await page.goto(`${base}/berths/${user}`);
    await page.getByRole('button', { name: 'More', exact: true }).click();
    await page.getByRole('menuitem', { name: 'Remove…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Remove the berth' });
    check(await dialog.getByRole('button', { name: 'Remove for ever' }).isDisabled(), 'it can be removed before the name is typed');
    await dialog.getByRole('textbox').fill(user);
    await dialog.getByLabel('Keep an archive on the host').check();
    await dialog.getByRole('button', { name: 'Pack away and remove' }).click();
    await page.getByText('No berth is assigned to this name').waitFor({ timeout: 90_000 });
  }],
  ['what was packed away is an archive, and that is removed', async () => {
    await page.getByRole('link', { name: 'Settings', exact: true }).click();
    const row = page.getByRole('row').filter({ hasText: '.berth' });
    await row.getByText(user, { exact: true }).waitFor({ timeout: 15_000 });
    await row.getByRole('button', { name: /^Actions for/ }).click();
    await page.getByRole('menuitem', { name: 'Remove…' }).click();
    await page.getByRole('dialog', { name: 'Remove the archive?' }).getByRole('button', { name: 'Remove' }).click();
    await page.getByText('No archives').waitFor({ timeout: 30_000 });
  }],
  ['signing out ends it', async () => {
    await page.getByRole('button', { name: /^Account/ }).click();
    await page.getByRole('menuitem', { name: 'Sign out' }).click();
    await page.getByRole('heading', { level: 1, name: 'Sign in to Berth' }).waitFor();
    await page.goto(`${base}/berths`);
    await page.getByRole('heading', { level: 1, name: 'Sign in to Berth' }).waitFor();
  }],
  ['no page complained', async () => check(complaints.length === 0, complaints.slice(0, 10).join('\n'))],
];

const good = await run(steps, { page: () => page });
await browser.close();
process.exit(good ? 0 : 1);
