// The main tasks without a mouse: what has the focus is always to be seen, and comes back where it was.
import { launch } from './browser.js';
import { check, listen, run } from './checks.js';
import { Stage } from './stage.js';

const stage = await Stage.open();
const users = await stage.fill(120);
const browser = await launch();
const complaints = [];
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
const page = await context.newPage();
listen(page, complaints);

const press = (key) => page.keyboard.press(key);
const focused = () => page.evaluate(() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  return { text: (element.getAttribute('aria-label') ?? element.textContent ?? '').trim().slice(0, 80), tag: element.tagName, seen: style.outlineStyle !== 'none' || style.boxShadow !== 'none' || element.tagName === 'BODY' || element.tabIndex < 0, inDialog: !!element.closest('dialog') };
});

/** Tab until something with these words has the focus; each on the way can be seen. */
async function tabTo(words, { back = false, most = 80 } = {}) {
  for (let n = 0; n < most; n += 1) {
    await press(back ? 'Shift+Tab' : 'Tab');
    const now = await focused();
    check(now.seen, `the focus is not to be seen on ${now.tag} ${now.text}`);
    if (words instanceof RegExp ? words.test(now.text) : now.text === words) return;
  }
  check(false, `Tab does not come to ${words}`);
}

const heading = (name) => page.getByRole('heading', { level: 1, name, exact: true }).waitFor();
const target = [...users].sort()[2];

const good = await run(
  [
    ['signing in', async () => {
      await page.goto(stage.url);
      await page.getByLabel('Name').waitFor();
      await tabTo('', { most: 3 });
      await page.keyboard.type('harbourmaster');
      await press('Tab');
      await page.keyboard.type('harbour pilot on watch');
      await press('Enter');
      await heading('Overview');
    }],
    ['past the navigation to the content', async () => {
      await page.reload();
      await heading('Overview');
      await press('Tab');
      check((await focused()).text === 'To the content', 'the first stop is not the way to the content');
      await press('Enter');
      check((await page.evaluate(() => document.activeElement.tagName)) === 'MAIN', 'the content has not the focus');
    }],
    ['to the table, through it, and into a berth', async () => {
      await page.reload();
      await heading('Overview');
      await tabTo('Berths');
      await press('Enter');
      await heading('Berths');
      check((await page.evaluate(() => document.activeElement.tagName)) === 'H1', 'the heading of the new page has not the focus');
      await page.getByRole('row').nth(3).waitFor();
      await press('/');
      check((await focused()).tag === 'INPUT', '/ does not come to the search');
      await press('ArrowDown');
      for (let n = 0; n < 40; n += 1) await press('ArrowDown');
      check((await page.evaluate(() => document.activeElement.closest('[data-index]')?.dataset.index)) === '40', `the arrows end at ${JSON.stringify(await focused())}`);
      await press('End');
      check((await page.evaluate(() => Number(document.activeElement.closest('[data-index]')?.dataset.index))) >= users.length - 1, 'End does not come to the end');
      await press('Home');
      await press('ArrowDown');
      await press('Space');
      await page.getByText('1 selected').waitFor();
      await press('Space');
      await press('/');
      await page.keyboard.type(target);
      await page.getByText(/^1 of /).waitFor();
      await press('ArrowDown');
      await press('Enter');
      await heading(target);
    }],
    ['a quota, and the focus is back where it was', async () => {
      await tabTo('Set quota');
      await press('Enter');
      await page.getByRole('dialog', { name: 'Set quota' }).waitFor();
      for (let n = 0; n < 25; n += 1) {
        await press('Tab');
        const now = await focused();
        check(now.inDialog || now.tag === 'BODY', `Tab leaves the dialog for ${now.tag} ${now.text}`);
      }
      await page.getByRole('dialog').getByLabel('Processes').focus();
      await page.keyboard.type('600');
      await page.getByRole('cell', { name: '600' }).waitFor();
      await press('Enter');
      await page.locator('.toast').filter({ hasText: 'Changed the berth of' }).waitFor();
      await page.waitForFunction(() => document.activeElement.textContent?.trim() === 'Set quota');
    }],
    ['a menu by arrows, a dialog by Escape', async () => {
      await tabTo(/^More/);
      await press('ArrowDown');
      check((await focused()).text === 'Suspend…', 'the first entry has not the focus');
      await press('ArrowDown');
      check((await focused()).text === 'Rebuild…', 'the arrow does not move');
      await press('Escape');
      check(/^More/.test((await focused()).text), 'the menu does not give the focus back');
      await press('Enter');
      await press('Enter');
      await page.getByRole('dialog', { name: 'Suspend the berth' }).waitFor();
      await press('Escape');
      await page.getByRole('dialog').waitFor({ state: 'detached' });
      check(/^More/.test((await focused()).text), 'the dialog does not give the focus back');
    }],
    ['removing a berth', async () => {
      await press('Enter');
      await press('End');
      await press('Enter');
      await page.getByRole('dialog', { name: 'Remove the berth' }).waitFor();
      await page.getByRole('dialog').getByRole('textbox').focus();
      await page.keyboard.type(target);
      await press('Enter');
      await page.getByText('No berth is assigned to this name').waitFor();
    }],
    ['the drawer of operations', async () => {
      await tabTo(/Operations|running/, { back: true });
      await press('Enter');
      await page.getByRole('complementary', { name: 'Operations' }).waitFor();
      await press('Escape');
      await page.getByRole('complementary', { name: 'Operations' }).waitFor({ state: 'detached' });
      check(/Operations|running/.test((await focused()).text), 'the drawer does not give the focus back');
    }],
    ['no page complained', async () => check(complaints.length === 0, complaints.join('\n'))],
  ],
  { page: () => page },
);
await browser.close();
await stage.close();
process.exit(good ? 0 : 1);
