// A few words for tests: what was expected, what was seen, and how long one waits for it.
export class Failed extends Error {}

export function check(condition, what) {
  if (!condition) throw new Failed(what);
}

/** What the page complains of that is no answer to a request. */
export function listen(page, complaints) {
  page.on('pageerror', (error) => complaints.push(`error in the page: ${error.stack ?? error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && !/Failed to load resource|ERR_/.test(message.text())) complaints.push(`console: ${message.text()}`);
  });
}

/** Runs the steps in turn; says of each that it is done, and of the first that is not, why, with a picture. */
export async function run(steps, { page = () => undefined, pictures = process.env.BERTH_WEB_PICTURES } = {}) {
  for (const [name, step] of steps) {
    const started = Date.now();
    try {
      await step();
      console.log(`ok ${name} (${Date.now() - started} ms)`);
    } catch (error) {
      console.error(`FAILED ${name}: ${error.stack ?? error}`);
      const shown = page();
      if (shown) {
        console.error(`at ${shown.url()}\n${(await shown.locator('body').innerText().catch(() => '')).slice(0, 3000)}`);
        if (pictures) await shown.screenshot({ path: `${pictures}/failed.png` }).catch(() => undefined);
      }
      return false;
    }
  }
  return true;
}
