// Names, lines and servers that mean harm or are unwell: the page shows them as text, stays usable, and says what is going on.
import { launch } from './browser.js';
import { check, listen, run } from './checks.js';
import { Stage } from './stage.js';

const stage = await Stage.open();
const users = await stage.fill(60);
const browser = await launch();
const complaints = [];
const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
const page = await context.newPage();
listen(page, complaints);

const MARKUP = '<img src=x onerror="document.title=\'caught\'"><b>bold</b>';
const RTL = 'שלום \u202egnp.exe\u202c مرحبا';
const heading = (name) => page.getByRole('heading', { level: 1, name, exact: true }).waitFor();
const user = users[8];

/** Milliseconds of the longest time in which the page did nothing else, while `work` is done. */
async function longest(work) {
  await page.evaluate(() => {
    window.tasks = [];
    window.watching = new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((entry) => entry.duration)));
    window.watching.observe({ entryTypes: ['longtask'] });
  });
  await work();
  return page.evaluate(() => Math.max(0, ...window.tasks));
}

const good = await run(
  [
    ['markup and text that runs the other way are shown as text', async () => {
      await stage.signIn(page);
      await stage.done(await stage.api('POST', `/api/v1/berths/${users[20]}/suspend`, { reason: `${MARKUP} ${RTL}` }));
      await stage.api('PATCH', '/api/v1/profiles/research', { description: `${MARKUP}${'w'.repeat(300)}` });
      stage.node.change(user, { conditions: [{ kind: 'PortTaken', message: `${MARKUP} ${RTL}${'x'.repeat(5000)}`, since: Date.now() }], ports: [{ protocol: 'tcp', port: 8080, container: `${RTL}${'y'.repeat(64)}`, container_port: 80, host: { state: 'taken', detail: MARKUP } }] });
      for (const [path, name] of [['/', 'Overview'], [`/berths/${user}`, user], [`/berths/${users[20]}`, users[20]], [`/berths/${users[20]}/activity`, users[20]], ['/profiles', 'Profiles'], ['/audit', 'Audit trail']]) {
        await page.goto(stage.url + path);
        await heading(name);
        await page.waitForTimeout(700);
        check((await page.locator('main img, main b').count()) === 0, `${path}: markup of others is markup here`);
        check(!(await page.title()).includes('caught'), `${path}: a script of others ran`);
        const hidden = await page.evaluate(() => /[\u202a-\u202e\u2066-\u2069]/.test(document.body.innerText));
        check(!hidden, `${path}: a character that turns text around is in the page`);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        check(wide <= 1, `${path}: it is ${wide} px wider than the window`);
      }
    }],
    ['a line of a MiB in the log', async () => {
      await page.goto(`${stage.url}/berths/${users[0]}/logs`);
      const task = await longest(async () => {
        await page.getByText('last line', { exact: true }).waitFor({ timeout: 15_000 });
        await page.getByText('more characters').first().waitFor();
      });
      const length = await page.evaluate(() => Math.max(...[...document.querySelectorAll('.line')].map((line) => line.textContent.length)));
      check(length < 5_000, `a line of ${length} characters is in the page`);
      check(task < 500, `the page stood still for ${task} ms`);
      await page.getByLabel('Filter').fill('<script>');
      await page.getByText('Following, 1 lines').waitFor();
    }],
    ['ten thousand events a minute', async () => {
      await page.goto(`${stage.url}/berths`);
      await heading('Berths');
      await page.getByRole('row').nth(5).waitFor();
      const requests = [];
      page.on('request', (request) => requests.push(request.url()));
      const task = await longest(async () => {
        const until = Date.now() + 6_000;
        for (let n = 0; Date.now() < until; n += 1) {
          const one = users[21 + (n % 30)];
          stage.node.change(one, { conditions: [{ kind: 'PortTaken', message: `port ${n} is taken`, since: Date.now() }] });
          await new Promise((resolve) => setTimeout(resolve, 6));
        }
        await page.getByLabel('Search').fill(users[22]);
        await page.getByText(/^1 of /).waitFor({ timeout: 2_000 });
      });
      check(task < 250, `the page stood still for ${task} ms`);
      check(requests.length < 60, `${requests.length} requests in six seconds`);
    }],
    ['an answer of 500 is said, with a way to try again', async () => {
      await page.route('**/api/v1/profiles*', (route) => route.fulfill({ status: 500, contentType: 'text/html', body: '<h1>oops</h1>' }));
      await page.goto(`${stage.url}/profiles`);
      await page.getByRole('alert').getByText('The server failed (500)').waitFor();
      await page.unroute('**/api/v1/profiles*');
      await page.getByRole('button', { name: 'Try again' }).click();
      await page.getByText('student', { exact: true }).waitFor();
    }],
    ['a server that hangs is said, and forgiven', async () => {
      await page.goto(`${stage.url}/images`);
      await heading('Images');
      await page.getByRole('link', { name: 'Profiles', exact: true }).waitFor();
      stage.server.kill('SIGSTOP');
      try {
        await page.getByRole('link', { name: 'Profiles', exact: true }).click();
        await heading('Profiles');
        await page.getByText('The server does not answer').waitFor({ timeout: 30_000 });
      } finally {
        stage.server.kill('SIGCONT');
      }
      await page.getByRole('button', { name: 'Try again' }).click();
      await page.getByText('student', { exact: true }).waitFor({ timeout: 30_000 });
    }],
    ['a server that goes is said, and found again when it comes back', async () => {
      await page.goto(`${stage.url}/berths/${users[0]}`);
      await heading(users[0]);
      await page.getByText('Docker answers').waitFor();
      await stage.kill();
      await page.getByText('The connection to the server is lost').waitFor({ timeout: 30_000 });
      await page.getByText('Use against quota').waitFor();
      await stage.start();
      await page.getByText('The connection to the server is lost').waitFor({ state: 'hidden', timeout: 60_000 });
      await stage.done(await stage.api('POST', `/api/v1/berths/${users[0]}/stop`));
      await page.locator('main').getByRole('status').getByText('Stopped', { exact: true }).first().waitFor({ timeout: 30_000 });
    }],
    ['no page complained', async () => check(complaints.length === 0, complaints.slice(0, 10).join('\n'))],
  ],
  { page: () => page },
);
await browser.close();
await stage.close();
process.exit(good ? 0 : 1);
