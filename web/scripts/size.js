// What a browser fetches before it shows the first page: index.html, and the scripts and styles that it names.
import { readdirSync, readFileSync } from 'node:fs';
import { gzipSync } from 'node:zlib';

const MOST = 120 * 1024;
const dist = new URL('../dist/', import.meta.url);
const page = readFileSync(new URL('index.html', dist), 'utf8');
// The chunk of charts comes with a berth's page; the terminal's only with a terminal.
const charts = readdirSync(new URL('assets/', dist)).filter((file) => /^chart-.*\.(js|css)$/.test(file)).map((file) => `assets/${file}`);
const files = ['index.html', ...[...page.matchAll(/(?:src|href)="\/([^"]+)"/g)].map(([, file]) => file), ...charts];
const sizes = files.map((file) => [file, gzipSync(readFileSync(new URL(file, dist)), { level: 9 }).length]);
const total = sizes.reduce((sum, [, size]) => sum + size, 0);
for (const [file, size] of sizes) console.log(`${String(size).padStart(8)}  ${file}`);
console.log(`${String(total).padStart(8)}  first load, gzip (at most ${MOST})`);
if (!sizes.some(([file]) => file.endsWith('.js')) || total > MOST) process.exit(1);
