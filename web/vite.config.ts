import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin } from 'vite';

/** The server sends files as they lie here, so each one is compressed once, beside itself. */
function compressed(): Plugin {
  return {
    name: 'compressed',
    apply: 'build',
    closeBundle() {
      for (const entry of readdirSync('dist', { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !/\.(js|css|html|svg|json)$/.test(entry.name)) continue;
        const file = join(entry.parentPath, entry.name);
        const bytes = readFileSync(file);
        const brotli = { params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } };
        for (const [suffix, packed] of [['.br', brotliCompressSync(bytes, brotli)], ['.gz', gzipSync(bytes, { level: 9 })]] as const) {
          if (packed.length < bytes.length) writeFileSync(file + suffix, packed);
        }
      }
    },
  };
}

/** Where `vite` finds a server while one develops: an address, or the path of an API socket (there one is who one is on this host). */
const target = process.env.BERTH_DEV ?? '/run/berth/api.sock';

export default defineConfig({
  plugins: [svelte(), compressed()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    host: '127.0.0.1',
    proxy: { '/api': target.startsWith('/') ? { target: { socketPath: target, host: 'localhost' } as never, ws: true } : { target, ws: true } },
  },
});
