// Every page, light and dark, with axe-core; and that none complains. Over the stand-in, whose berths have every state and strange names.
import { launch } from './browser.js';
import { violations } from './axe.js';
import { check, listen, run } from './checks.js';
import { arrive, OWN_PAGES, PAGES, resolve } from './pages.js';
import { Stage } from './stage.js';

const stage = await Stage.open();
const browser = await launch();
const complaints = [];
let page;

async function look(pages, user, sign) {
  for (const [theme, width] of [['light', 1440], ['dark', 1440], ['light', 390]]) {
    const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: theme, reducedMotion: 'reduce' });
    page = await context.newPage();
    listen(page, complaints);
    await sign(page);
    for (const one of pages.map((entry) => resolve(entry, user))) {
      await arrive(page, stage.url, one);
      await page.waitForTimeout(150);
      const found = await violations(page);
      check(found.length === 0, `${one.name}, ${theme}, ${width} px:\n${found.join('\n')}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      check(wide <= 1, `${one.name}, ${theme}, ${width} px: it is ${wide} px wider than the window`);
    }
    await context.close();
  }
}

const users = await stage.fill(48);
const good = await run(
  [
    ['the sign-in page', async () => {
      page = await browser.newPage();
      await arrive(page, stage.url, { path: '/', heading: 'Sign in to Berth' });
      const found = await violations(page);
      check(found.length === 0, found.join('\n'));
    }],
    ['every page of an administrator', () => look(PAGES, users[8], (shown) => stage.signIn(shown))],
    ['every page of a user', () => look(OWN_PAGES, 'daemon', (shown) => stage.follow(shown))],
    ['dialogs and menus', async () => {
      for (const theme of ['light', 'dark']) {
        const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: theme, reducedMotion: 'reduce' });
        page = await context.newPage();
        listen(page, complaints);
        await stage.signIn(page);
        const opened = async (path, heading, name, more) => {
          await arrive(page, stage.url, { path, heading });
          if (more) await page.getByRole('button', { name: 'More', exact: true }).click();
          await page.getByRole(more ? 'menuitem' : 'button', { name }).first().click();
          await page.waitForTimeout(400);
          const found = await violations(page);
          check(found.length === 0, `${name}, ${theme}:\n${found.join('\n')}`);
        };
        await opened('/berths', 'Berths', 'Assign a berth');
        await opened('/berths', 'Berths', 'Columns');
        await opened(`/berths/${users[8]}`, users[8], 'Set quota');
        await opened(`/berths/${users[8]}`, users[8], 'Suspend…', true);
        await opened(`/berths/${users[8]}`, users[8], 'Rebuild…', true);
        await opened(`/berths/${users[8]}`, users[8], 'Remove…', true);
        await opened(`/berths/${users[8]}`, users[8], 'Stop');
        await opened('/profiles', 'Profiles', 'New profile');
        await opened('/images', 'Images', 'Build');
        await opened('/', 'Overview', /Operations|running/);
        await context.close();
      }
    }],
    ['no page complains', async () => check(complaints.length === 0, complaints.slice(0, 10).join('\n'))],
  ],
  { page: () => page },
);
await browser.close();
await stage.close();
process.exit(good ? 0 : 1);
