// A stand-in for berth-node with as many berths as one likes, for pictures and measurements: a thousand real ones fit on no host of ours.
// What must be true is tested against the real node (tests/tests/web.rs).
import { createServer } from 'node:http';
import { rmSync } from 'node:fs';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** Numbers that look like chance and are the same each time. */
function chance(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** The account of a name: of the host, for everybody whose name is not `nobody…`. */
function account(name) {
  if (name.startsWith('nobody')) return undefined;
  let hash = 0;
  for (const c of name) hash = (hash * 31 + c.codePointAt(0)) % 50_000;
  return { name, uid: 1_000 + hash, gid: 1_000 + hash, home: `/home/${name}`, system: false };
}

export class Node {
  berths = new Map();
  images = [
    { digest: `sha256:${'3f9a'.repeat(16)}`, name: 'default', created_at: Date.now() - 9 * 86_400_000, size_bytes: 812_345_678, used_by: [] },
    { digest: `sha256:${'b71c'.repeat(16)}`, name: 'bookworm', created_at: Date.now() - 40 * 86_400_000, size_bytes: 774_100_200, used_by: [] },
  ];
  checks = [
    { name: 'kernel', level: 'ok', detail: 'Linux 6.12.48 has all that berths need', fix: null },
    { name: 'cgroup', level: 'ok', detail: 'cgroup v2 with cpu, memory, pids and io', fix: null },
    { name: 'nftables', level: 'ok', detail: 'the table inet berth is in place', fix: null },
    { name: 'disk', level: 'ok', detail: 'project quotas are enforced at /var/lib/berth', fix: null },
    { name: 'shims', level: 'warning', detail: '2 shims run an older program than the one installed (since 3 days)', fix: 'they are replaced when their berths next sleep; at once: berth restart USER' },
  ];
  /** What the host says of accounts that are not as they should be. */
  accounts = [];
  archives = [];
  #watchers = new Set();
  #random;

  constructor(seed = 7) {
    this.#random = chance(seed);
  }

  /** Listens at `socket` until the process ends. */
  async listen(socket) {
    rmSync(socket, { force: true });
    const server = createServer((request, response) => void this.#answer(request, response));
    await new Promise((resolve) => server.listen(socket, resolve));
    setInterval(() => this.#tick(), 1_000).unref();
    return server;
  }

  /** Changes a berth behind the server's back. */
  change(user, change) {
    const berth = this.berths.get(user);
    Object.assign(berth, change);
    this.#told(berth);
  }

  #told(berth) {
    for (const watcher of this.#watchers) watcher.write(`${JSON.stringify(berth)}\n`);
  }

  /** Time passes: those that run use something. */
  #tick() {
    for (const berth of this.berths.values()) {
      if (berth.state !== 'running') continue;
      const usage = berth.usage;
      usage.cpu_usec += Math.round(1e6 * (berth.limits.cpu_millis / 1000) * Math.min(1, berth.busy * (0.6 + 0.8 * this.#random())));
      usage.network.egress_bytes += Math.round(berth.busy * 2e6 * this.#random());
      usage.network.ingress_bytes += Math.round(berth.busy * 9e6 * this.#random());
      usage.io.write_bytes += Math.round(berth.busy * 4e6 * this.#random());
    }
  }

  #ensure(user, ensure) {
    const random = this.#random;
    const found = account(user);
    let berth = this.berths.get(user);
    if (!berth) {
      const part = random();
      berth = {
        user, id: ensure.id, state: 'stopped', docker_ready: false, conditions: [], image: ensure.image, limits: ensure.limits, uid: found.uid, id_base: 2_000_224_256 + this.berths.size * 65_536,
        id_count: 65_536, address: `10.213.${Math.floor((this.berths.size + 2) / 256)}.${(this.berths.size + 2) % 256}`, socket: `/run/berth/users/${found.uid}/docker.sock`, pid: null, started_at: null,
        usage: null, suspended: null, sleep: null, last_used_at: null, running_containers: null, ports: [], source_ports: [20_000, 20_255],
      };
      const disk = Math.round(ensure.limits.disk_bytes * (0.04 + 0.7 * part * part));
      Object.defineProperty(berth, 'busy', { value: random() < 0.25 ? random() : 0.03 * random(), enumerable: false });
      berth.usage = {
        memory_bytes: 0, swap_bytes: 0, pids: 0, cpu_usec: 0, throttled_usec: 0, oom_kills: 0, disk_bytes: disk,
        disk: { used_bytes: disk, limit_bytes: ensure.limits.disk_bytes, used_inodes: 41_200, limit_inodes: 655_360 },
        io: { read_bytes: 0, write_bytes: 0, read_ops: 0, write_ops: 0 }, network: { egress_bytes: 0, ingress_bytes: 0 }, pressure: null,
      };
      this.berths.set(user, berth);
    }
    berth.limits = ensure.limits;
    berth.image = ensure.image;
    berth.usage.disk.limit_bytes = ensure.limits.disk_bytes;
    berth.suspended = ensure.suspended ?? null;
    if (berth.suspended) berth.state = 'suspended';
    else if (berth.state === 'suspended') berth.state = berth.started_at ? 'running' : 'stopped';
    if (!berth.suspended && ensure.wanted === 'running' && berth.state !== 'running') {
      const stall = () => ({ some_avg10: Math.round(berth.busy * 900 * random()), some_avg60: 0, full_avg10: 0, full_avg60: 0 });
      Object.assign(berth, { state: 'running', docker_ready: true, started_at: Date.now(), pid: 4_000 + this.berths.size, last_used_at: Date.now() - Math.round(random() * 7_200_000), running_containers: Math.floor(random() * 6), sleep: null });
      Object.assign(berth.usage, { memory_bytes: Math.round(ensure.limits.memory_bytes * (0.05 + 0.8 * random())), pids: 30 + Math.floor(random() * 160), pressure: { cpu: stall(), memory: stall(), io: stall() } });
    }
    if (ensure.wanted === 'stopped') this.#halt(berth);
    this.#told(berth);
    return berth;
  }

  #halt(berth) {
    Object.assign(berth, { state: 'stopped', docker_ready: false, started_at: null, pid: null, running_containers: null });
    Object.assign(berth.usage, { memory_bytes: 0, pids: 0, cpu_usec: 0 });
  }

  async #answer(request, response) {
    const url = new URL(request.url, 'http://node');
    const [, , kind, name, verb] = url.pathname.split('/').map(decodeURIComponent);
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = () => JSON.parse(Buffer.concat(chunks).toString());
    const send = (value, status = 200) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    const missing = (code) => send({ code, detail: 'there is none' }, 404);
    const berth = kind === 'berths' && name ? this.berths.get(name) : undefined;
    switch (`${request.method} ${kind}${name === undefined ? '' : '/*'}${verb === undefined ? '' : `/${verb}`}`) {
      case 'GET node':
        return send({ protocol: 1, version: '0.1.0', hostname: 'pier', kernel: '6.12.48-amd64', cgroup: 'v2', cpus: 64, memory_bytes: 256 * GIB, disk_bytes: 4096 * GIB, disk_free_bytes: 2764 * GIB, run_dir: '/run/berth' });
      case 'GET users/*': {
        const found = account(name);
        return found ? send(found) : missing('user_not_found');
      }
      case 'POST users': {
        const { names } = body();
        return send(names.map((one) => ({ name: one, user: account(one) ?? null, groups: [] })));
      }
      case 'GET accounts':
        return send(this.accounts);
      case 'GET archives':
        return send(this.archives);
      case 'GET berths':
        return send([...this.berths.values()]);
      case 'GET berths/*':
        return berth ? send(berth) : missing('berth_not_found');
      case 'PUT berths/*':
        return send(this.#ensure(name, body()));
      case 'DELETE berths/*':
        this.berths.delete(name);
        return response.writeHead(204).end();
      case 'POST berths/*/stop':
        this.#halt(berth);
        this.#told(berth);
        return send(berth);
      case 'POST berths/*/preview':
        return send(body().limits.disk_bytes > berth.limits.disk_bytes ? [{ field: 'disk_bytes', reason: 'this host grows no disk that is in use' }] : []);
      case 'GET berths/*/logs': {
        response.writeHead(200, { 'content-type': 'text/plain' });
        const level = ['info', 'info', 'info', 'warning'];
        for (let n = 0; n < 120; n += 1) response.write(`time="2026-11-30T05:${String(n % 60).padStart(2, '0')}:07Z" level=${level[n % 4]} msg="${['Loading containers: done.', 'API listen on /run/docker.sock', 'ignoring event: container exited', 'Daemon has completed initialization'][n % 4]}" n=${n}\n`);
        response.write(`\u001b[31m<script>alert(1)</script>\u202egnp.exe\u001b[0m\n${'x'.repeat(MIB)}\nlast line\n`);
        return url.searchParams.get('follow') === 'true' ? undefined : response.end();
      }
      case 'GET berths/*/inside': {
        if (berth.state !== 'running') return send({ code: 'not_seen', detail: 'the berth rests, and was not looked at since the node started' }, 409);
        const taken = (bytes, part) => ({ bytes: Math.round(bytes), unused_bytes: Math.round(bytes * part) });
        const at = Date.now();
        const image = (n, size, days, containers) => ({ name: n, size_bytes: size, created: Math.round(at / 1000 - days * 86_400), containers });
        const one = (n, from, state, status, size) => ({ name: n, image: from, state, status, size_bytes: size });
        return send({
          at, container_count: 3, image_count: 4, volume_count: 2,
          containers: [one('postgres', 'postgres:17', 'running', 'Up 3 hours (healthy)', 63_000_000), one('web', 'nginx:stable', 'running', 'Up 3 hours', 1_130_000), one('<b>build</b>', 'python:3.13-slim', 'exited', 'Exited (1) 2 days ago', 411_000)],
          images: [image('postgres:17', 438_000_000, 31, 1), image('nginx:stable', 192_000_000, 12, 1), image('python:3.13-slim', 124_000_000, 45, 1), image('7cc4b5aefd1d', 98_300_000, 80, 0)],
          volumes: [{ name: 'pgdata', size_bytes: 322_000_000, containers: 1 }, { name: 'old-uploads', size_bytes: 54_000_000, containers: 0 }],
          disk: { images: taken(812_000_000, 0.12), containers: taken(64_500_000, 0.01), volumes: taken(376_000_000, 0.14), build_cache: taken(143_000_000, 1) },
        });
      }
      case 'POST berths/*/prune':
        return send({ bytes: 143_000_000 });
      case 'GET usage': {
        const whose = url.searchParams.get('user');
        const up = [...this.berths.values()].filter((one) => one.started_at && (whose === null || whose === one.user));
        return send(up.map((one) => ({ user: one.user, id: one.id, state: one.state, at: Date.now(), usage: one.usage })));
      }
      case 'GET watch':
        response.writeHead(200);
        for (const one of this.berths.values()) response.write(`${JSON.stringify(one)}\n`);
        this.#watchers.add(response);
        response.on('close', () => this.#watchers.delete(response));
        return undefined;
      case 'GET calls/*':
        if (name === 'watch') return response.writeHead(200).flushHeaders();
        return send({ id: name, next: Number(url.searchParams.get('after')), more: false, records: [] });
      case 'POST calls/*/taken':
        return response.writeHead(204).end();
      case 'GET images':
        return send(this.images.map((image) => ({ ...image, used_by: [...this.berths.values()].filter((one) => one.image === image.digest).map((one) => one.user) })));
      case 'POST images/*': {
        response.writeHead(200);
        let step = 0;
        const timer = setInterval(() => {
          step += 1;
          response.write(`${JSON.stringify({ type: 'log', line: `I: step ${step}: unpacking docker.io, containerd, runc` })}\n`);
        }, 300);
        response.on('close', () => clearInterval(timer));
        return undefined;
      }
      case 'GET doctor':
        return send(this.checks);
      default:
        return missing('no_such_path');
    }
  }
}
