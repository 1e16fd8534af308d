// A server of our own over the stand-in, with a harbour full of berths: what pictures and measurements are made of.
import { execFileSync, spawn } from 'node:child_process';
import { chownSync, mkdirSync, mkdtempSync, rmSync, writeFileSync, chmodSync, existsSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { tmpdir } from 'node:os';

import { Node } from './stand-in.js';

const GIB = 2 ** 30;
const NOBODY = 65_534;
const PASSWORD = 'harbour pilot on watch';

/** A port that nobody has now. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

export class Stage {
  static async open({ server = process.env.BERTH_SERVER ?? 'berth-server', config = '[policy]\ndisk_overcommit = 100.0\n[accounts]\ncheck_seconds = 5\n' } = {}) {
    const stage = new Stage();
    // Whatever ends this program, no server stays behind it.
    process.once('exit', () => stage.server?.kill('SIGKILL'));
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => process.exit(1));
    stage.directory = mkdtempSync(join(tmpdir(), 'berth-web-'));
    chmodSync(stage.directory, 0o755);
    mkdirSync(join(stage.directory, 'state'));
    mkdirSync(join(stage.directory, 'run'));
    for (const part of ['state', 'run']) chownSync(join(stage.directory, part), NOBODY, NOBODY);
    stage.node = new Node();
    const nodeSocket = join(stage.directory, 'node.sock');
    stage.listener = await stage.node.listen(nodeSocket);
    chmodSync(nodeSocket, 0o666);
    stage.socket = join(stage.directory, 'run', 'api.sock');
    const file = join(stage.directory, 'server.toml');
    const port = await freePort();
    stage.url = `http://127.0.0.1:${port}`;
    writeFileSync(file, `api_socket = "${stage.socket}"\nnode_socket = "${nodeSocket}"\nstate_dir = "${join(stage.directory, 'state')}"\n[listen]\naddress = "127.0.0.1:${port}"\n${config}`);
    stage.command = [server, '--config', file];
    await stage.start();
    await stage.api('POST', '/api/v1/admins', { name: 'harbourmaster', role: 'admin', password: PASSWORD });
    return stage;
  }

  /** Starts the server, and waits until it answers. */
  async start() {
    this.server = spawn('setpriv', ['--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups', '--', ...this.command], { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, BERTH_LOG: 'error' } });
    const deadline = Date.now() + 20_000;
    while (!(existsSync(this.socket) && (await this.api('GET', '/api/v1/node').catch(() => undefined)))) {
      if (Date.now() > deadline || this.server.exitCode !== null) throw new Error('berth-server is not ready');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** As a power cut would. */
  async kill() {
    const ended = new Promise((resolve) => this.server.once('exit', resolve));
    this.server.kill('SIGKILL');
    await ended;
  }

  /** Signs the page in as an administrator. */
  async signIn(page) {
    await page.goto(this.url);
    await page.getByLabel('Name').fill('harbourmaster');
    await page.getByLabel('Password').fill(PASSWORD);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
  }

  /** Opens the page as the account `daemon`, which every Debian host has, by a one-time link. */
  async follow(page) {
    await page.goto(this.link());
    await page.getByRole('heading', { level: 1, name: 'My berth' }).waitFor();
  }

  link() {
    return this.#asDaemon('sessions/links').url;
  }

  /** One request as the account `daemon`. */
  #asDaemon(path, body) {
    const sent = body === undefined ? [] : ['-H', 'content-type: application/json', '-d', JSON.stringify(body)];
    const words = ['curl', '-s', '--max-time', '10', '--unix-socket', this.socket, '-X', 'POST', ...sent, `http://berth/api/v1/${path}`];
    return JSON.parse(execFileSync('setpriv', ['--reuid', '1', '--regid', '1', '--clear-groups', '--', ...words], { encoding: 'utf8' }));
  }

  async close() {
    const ended = new Promise((resolve) => this.server.once('exit', resolve));
    if (this.server.exitCode === null) {
      this.server.kill('SIGTERM');
      await ended;
    }
    this.listener.closeAllConnections();
    this.listener.close();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** One request as root; the JSON of a success. */
  api(method, path, body) {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const headers = text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
      const sent = request({ socketPath: this.socket, method, path, headers }, (response) => {
        const chunks = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('end', () => {
          const answer = Buffer.concat(chunks).toString();
          if (response.statusCode < 300) resolve(answer === '' ? undefined : JSON.parse(answer));
          else reject(new Error(`${method} ${path}: ${response.statusCode} ${answer}`));
        });
      });
      sent.on('error', reject);
      sent.end(text);
    });
  }

  async done(accepted) {
    const ended = await this.api('GET', `/api/v1/operations/${accepted.operation.id}/wait?timeout=30`);
    if (!ended.finished_at) throw new Error(`it did not end: ${JSON.stringify(ended)}`);
    return ended;
  }

  /** Berths in every state, with names of every kind. */
  async fill(number) {
    await this.api('POST', '/api/v1/images/default/default');
    await this.api('PATCH', '/api/v1/profiles/student', { description: 'a class of two hundred', cpu_millis: 1000, memory_bytes: 2 * GIB, disk_bytes: 10 * GIB });
    await this.api('POST', '/api/v1/profiles', { name: 'research', description: 'long jobs, large images', cpu_millis: 8000, memory_bytes: 32 * GIB, disk_bytes: 200 * GIB, policy: { egress: 'all', stop_after: null } });
    const first = ['ada', 'alan', 'barbara', 'claude', 'donald', 'edsger', 'frances', 'grace', 'hedy', 'ida', 'john', 'katherine', 'ken', 'leslie', 'margaret', 'niklaus', 'radia', 'sophie', 'tim', 'vint'];
    const last = ['byte', 'core', 'dijk', 'fast', 'gate', 'heap', 'kern', 'link', 'mesh', 'node', 'pipe', 'ring', 'stack', 'tree', 'word'];
    const names = [`${'long'.repeat(8)}`, ...Array.from({ length: number }, (_, n) => (number > 300 ? `${first[n % 20]}.${last[Math.floor(n / 20) % 15]}${Math.floor(n / 300) || ''}` : `${first[n % 20]}.${last[(n * 7) % 15]}`))];
    const strange = ['"><b>mallory', '\u202eevil', 'שלום.מרחבא', 'q'.repeat(64)];
    const users = [...[...new Set(names)].slice(0, number - strange.length), ...strange];
    const rest = [...users.entries()];
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let next = rest.shift(); next; next = rest.shift()) {
          const [n, user] = next;
          const accepted = await this.api('POST', '/api/v1/berths', { user, profile: n % 5 === 2 ? 'research' : n % 3 === 0 ? 'student' : 'default', start: n % 4 !== 3 });
          if (n < 40 || n > number - 10) await this.done(accepted);
        }
      }),
    );
    await this.done(await this.api('POST', '/api/v1/berths', { user: 'daemon', profile: 'student', allow_system: true }));
    const now = Date.now();
    const change = (n, what) => this.node.change(users[n], what);
    change(5, { state: 'failed', docker_ready: false, conditions: [{ kind: 'DockerNotReady', message: 'the inner Docker did not answer within 60 s; the berth’s log ends in: no space left on device', since: now - 340_000 }] });
    change(9, { state: 'frozen', sleep: { since: now - 1_900_000, reason: 'nobody used it for 15 minutes, and no container runs' }, running_containers: 0 });
    change(12, { state: 'frozen', sleep: { since: now - 8_200_000, reason: 'nobody used it for 15 minutes, and no container runs' }, running_containers: 0 });
    change(8, { conditions: [{ kind: 'PortTaken', message: 'port 8080 of container web is not at 127.0.0.1: another program has it', since: now - 52_000 }], running_containers: 3, ports: [
      { protocol: 'tcp', port: 8080, container: 'web', container_port: 80, host: { state: 'taken', detail: 'another program has it' } },
      { protocol: 'tcp', port: 5432, container: 'postgres', container_port: 5432, host: { state: 'open' } },
      { protocol: 'udp', port: 5353, container: '<b>mdns</b>\u202e', container_port: 5353, host: { state: 'not_allowed', detail: 'the profile allows 1024-5000' } },
    ] });
    const full = this.node.berths.get(users[14]);
    full.usage.disk.used_bytes = Math.round(full.limits.disk_bytes * 0.962);
    full.usage.disk_bytes = full.usage.disk.used_bytes;
    change(14, {});
    change(16, { state: 'starting', docker_ready: false });
    await this.done(await this.api('POST', `/api/v1/berths/${users[17]}/suspend`, { reason: 'a miner ran in it; see ticket 4711' }));
    await this.api('POST', '/api/v1/rules', { group: 'students', profile: 'student', auto: true, most: 200 });
    await this.api('POST', '/api/v1/rules', { group: '"><i>staff', profile: 'research' });
    this.#asDaemon('requests', { amounts: { disk_bytes: { add: 20 * GIB } }, until: now + 4 * 86_400_000, reason: 'a data set <b>of 18 GB</b> for the thesis' });
    this.node.accounts = [{ name: users[20], state: 'expired', detail: `the account of ${users[20]} has expired (shadow: 20241)`, local: true }];
    this.node.archives = [users[2], 'emeritus'].map((user, n) => ({
      name: `${user}-20261${n + 1}02-091500.berth`, size_bytes: (n + 1) * 1_234_567_890, user, created_at: now - (n * 30 + 3) * 86_400_000,
      image: this.node.images[n].digest, disk_bytes: (n + 1) * 3_456_789_012, docker_images: ['postgres:17'], notes: { profile: n === 0 ? 'student' : null },
    }));
    await this.done(await this.api('PATCH', `/api/v1/berths/${users[8]}`, { memory_bytes: 6 * GIB, pids: 2048 }));
    return users;
  }
}
