// Pictures of all pages at 1440 and 390 px, light and dark, into one directory; and the four of the README, small, into another.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { launch } from './browser.js';
import { arrive, OWN_PAGES, PAGES, resolve } from './pages.js';
import { Stage } from './stage.js';

const [, , directory, small] = process.argv;
if (!directory || !small) {
  console.error('usage: node tests/pictures.js DIR DIR');
  process.exit(2);
}
for (const made of [directory, small]) mkdirSync(made, { recursive: true });
const README = [['overview', 1440, 'light'], ['berths', 1440, 'dark'], ['berth', 1440, 'light'], ['berths', 390, 'light']];

const stage = await Stage.open();
const browser = await launch();
try {
  const users = await stage.fill(60);
  for (const theme of ['light', 'dark']) {
    for (const width of [1440, 390]) {
      for (const [pages, user, sign] of [[PAGES, users[8], (page) => stage.signIn(page)], [OWN_PAGES, 'daemon', (page) => stage.follow(page)]]) {
        const context = await browser.newContext({ viewport: { width, height: width === 390 ? 844 : 900 }, colorScheme: theme, reducedMotion: 'reduce' });
        const page = await context.newPage();
        if (pages === PAGES) {
          await arrive(page, stage.url, { path: '/', heading: 'Sign in to Berth' });
          await page.screenshot({ path: join(directory, `sign-in-${width}-${theme}.png`) });
        }
        await sign(page);
        for (const one of pages.map((entry) => resolve(entry, user))) {
          await arrive(page, stage.url, one);
          // Two looks at what is used, so that there are rates.
          await page.waitForTimeout(one.name === 'overview' || one.name === 'berths' ? 6_500 : one.name === 'berth' || one.name === 'mine' ? 3_200 : 500);
          await page.screenshot({ path: join(directory, `${one.name}-${width}-${theme}.png`) });
        }
        await context.close();
      }
    }
  }
  for (const [name, width, theme] of README) {
    const narrow = width === 390;
    const context = await browser.newContext({ viewport: { width, height: narrow ? 844 : 900 }, deviceScaleFactor: narrow ? 0.75 : 0.5, colorScheme: theme, reducedMotion: 'reduce' });
    const page = await context.newPage();
    await stage.signIn(page);
    await arrive(page, stage.url, resolve(PAGES.find((one) => one.name === name), users[8]));
    await page.waitForTimeout(6_500);
    await page.screenshot({ path: join(small, `${name}-${width}-${theme}.png`) });
    await context.close();
  }
} finally {
  await browser.close();
  await stage.close();
}
