/** What the API calls by short names, in words. */
import type { Berth, BerthState, Egress, Limits, Operation, Policy } from '../api/types';
import { bits, bytes, count, cpus, cpuWords, span } from './units';

export type Tone = 'good' | 'busy' | 'idle' | 'warn' | 'bad' | 'quiet';

export const STATES: Record<BerthState, { word: string; tone: Tone; meaning: string }> = {
  running: { word: 'Running', tone: 'good', meaning: 'Its Docker answers.' },
  starting: { word: 'Starting', tone: 'busy', meaning: 'Its Docker is about to answer.' },
  stopping: { word: 'Stopping', tone: 'busy', meaning: 'Its containers are being stopped.' },
  frozen: { word: 'Asleep', tone: 'idle', meaning: 'Nobody used it: it is frozen, and wakes on the next connection.' },
  stopped: { word: 'Stopped', tone: 'quiet', meaning: 'It starts on the next connection.' },
  suspended: { word: 'Suspended', tone: 'warn', meaning: 'An administrator has barred it.' },
  failed: { word: 'Failed', tone: 'bad', meaning: 'It could not be brought to what is wanted.' },
};

/** The order in which states are listed: what needs attention first. */
export const STATE_ORDER: BerthState[] = ['failed', 'suspended', 'starting', 'stopping', 'running', 'frozen', 'stopped'];

const KINDS: Record<string, [doing: string, done: string]> = {
  berth_create: ['Assigning a berth to', 'Assigned a berth to'],
  berth_change: ['Changing the berth of', 'Changed the berth of'],
  berth_start: ['Starting the berth of', 'Started the berth of'],
  berth_stop: ['Stopping the berth of', 'Stopped the berth of'],
  berth_restart: ['Restarting the berth of', 'Restarted the berth of'],
  berth_delete: ['Removing the berth of', 'Removed the berth of'],
  berth_suspend: ['Suspending the berth of', 'Suspended the berth of'],
  berth_resume: ['Resuming the berth of', 'Resumed the berth of'],
  berth_rebuild: ['Rebuilding the berth of', 'Rebuilt the berth of'],
  berth_archive: ['Archiving the berth of', 'Archived the berth of'],
  berth_restore: ['Restoring the berth of', 'Restored the berth of'],
  image_build: ['Building the image', 'Built the image'],
  image_import: ['Importing the image', 'Imported the image'],
  image_pull: ['Pulling the image', 'Pulled the image'],
  image_remove: ['Removing the image', 'Removed the image'],
};

/** `Starting the berth of`; the subject is put behind it by whoever shows it. */
export function operationWords(operation: Pick<Operation, 'kind' | 'state'>): string {
  const [doing, done] = KINDS[operation.kind] ?? [`${sentence(operation.kind)}:`, `${sentence(operation.kind)}:`];
  if (operation.state === 'succeeded') return done;
  return doing;
}

export const OPERATION_STATES: Record<Operation['state'], { word: string; tone: Tone }> = {
  pending: { word: 'Waiting', tone: 'quiet' },
  running: { word: 'Under way', tone: 'busy' },
  succeeded: { word: 'Done', tone: 'good' },
  failed: { word: 'Failed', tone: 'bad' },
  cancelled: { word: 'Cancelled', tone: 'quiet' },
};

/** `create_berth`, `NotAsWanted`: `Create berth`, `Not as wanted`. */
export function sentence(name: string): string {
  const words = name.replace(/_/g, ' ').replace(/([a-z0-9])([A-Z])/g, (_, a: string, b: string) => `${a} ${b.toLowerCase()}`);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export type LimitKind = 'cpus' | 'bytes' | 'count' | 'bps' | 'iops' | 'bits' | 'weight';
export type LimitName = keyof Limits;

/** Every limit: what it is called, how it is written, whether it may be absent, and what an empty field means. */
export const LIMITS: { name: LimitName; label: string; kind: LimitKind; optional: boolean; help: string; main: boolean }[] = [
  { name: 'cpu_millis', label: 'CPUs', kind: 'cpus', optional: false, main: true, help: 'CPU time, at least 0.05' },
  { name: 'memory_bytes', label: 'Memory', kind: 'bytes', optional: false, main: true, help: 'with page cache, at least 256m' },
  { name: 'disk_bytes', label: 'Disk', kind: 'bytes', optional: false, main: true, help: 'root file system, images, volumes and build cache, at least 1g' },
  { name: 'pids', label: 'Processes', kind: 'count', optional: false, main: true, help: 'processes and threads, at least 64' },
  { name: 'cpu_weight', label: 'CPU weight', kind: 'weight', optional: false, main: false, help: 'share of a busy host; 100 is usual' },
  { name: 'memory_high_bytes', label: 'Memory, slowed from', kind: 'bytes', optional: true, main: false, help: 'from here on memory is taken back; at least 128m' },
  { name: 'swap_bytes', label: 'Swap', kind: 'bytes', optional: true, main: false, help: 'on top of the memory' },
  { name: 'inodes', label: 'Files', kind: 'count', optional: true, main: false, help: 'files and directories, at least 16384' },
  { name: 'io_read_bps', label: 'Disk reads', kind: 'bps', optional: true, main: false, help: 'bytes per second, at least 1m' },
  { name: 'io_write_bps', label: 'Disk writes', kind: 'bps', optional: true, main: false, help: 'bytes per second, at least 1m' },
  { name: 'io_read_iops', label: 'Read operations', kind: 'iops', optional: true, main: false, help: 'per second, at least 50' },
  { name: 'io_write_iops', label: 'Write operations', kind: 'iops', optional: true, main: false, help: 'per second, at least 50' },
  { name: 'network_egress_bits', label: 'Network out', kind: 'bits', optional: true, main: false, help: 'at least 100kbit' },
  { name: 'network_ingress_bits', label: 'Network in', kind: 'bits', optional: true, main: false, help: 'at least 100kbit' },
];

/** A limit's figure in its unit. */
export function limitWords(name: string, value: unknown): string {
  if (value === null || value === undefined) return /_after$/.test(name) ? 'never' : 'none';
  if (typeof value === 'number') {
    if (name === 'cpu_millis') return cpus(value);
    if (/_bytes$/.test(name)) return value === 0 && name !== 'memory_bytes' && name !== 'disk_bytes' ? 'none' : bytes(value);
    if (/_bps$/.test(name)) return `${bytes(value)}/s`;
    if (/_iops$/.test(name)) return `${count(value)}/s`;
    if (/_bits$/.test(name)) return bits(value);
    if (/_after$/.test(name)) return span(value);
    return count(value);
  }
  if (typeof value === 'string') return value;
  if (name === 'egress') return egressWords(value as Egress);
  return JSON.stringify(value);
}

/** What a limit or a part of the policy is called. */
export function fieldWords(name: string): string {
  return LIMITS.find((limit) => limit.name === name)?.label ?? sentence(name);
}

/** `1.5 CPUs, 4 GiB memory, 512 processes, 20 GiB disk`. */
export function quotaWords(limits: Pick<Limits, 'cpu_millis' | 'memory_bytes' | 'pids' | 'disk_bytes'>): string {
  return `${cpuWords(limits.cpu_millis)}, ${bytes(limits.memory_bytes)} memory, ${count(limits.pids)} processes, ${bytes(limits.disk_bytes)} disk`;
}

export function egressWords(egress: Egress): string {
  if (egress === 'all') return 'everything that the host reaches';
  if (egress === 'internet') return 'the internet, no private networks';
  if (egress === 'none') return 'nothing';
  return typeof egress === 'object' && egress !== null && 'list' in egress ? `only ${egress.list.join(', ')}` : 'unknown';
}

export function homeWords(home: Policy['home']): string {
  return { rw: 'home readable and writable', ro: 'home readable', none: 'no home' }[home];
}

/** What is asked for and not reached yet. */
export function wantedWords(berth: Pick<Berth, 'wanted' | 'state'>): string | undefined {
  if (berth.wanted === 'deleted') return 'is being removed';
  if (berth.wanted === 'running' && berth.state !== 'running') return 'is to run';
  if (berth.wanted === 'stopped' && berth.state !== 'stopped') return 'is to stop';
  return undefined;
}
