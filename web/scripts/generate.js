// Writes src/api/schema.d.ts from the OpenAPI document of berth-server; --check only compares.
// The document: $BERTH_OPENAPI (a file), or what `berth-server openapi` prints ($BERTH_SERVER names the program).
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';

import openapiTS, { astToString } from 'openapi-typescript';

const file = new URL('../src/api/schema.d.ts', import.meta.url);

/** Shapes only: words may change without the program having to. */
function bare(value) {
  if (Array.isArray(value)) return value.map(bare);
  if (value === null || typeof value !== 'object') return value;
  const properties = value.properties;
  const rest = Object.entries(value).filter(([key, inner]) => !(['description', 'summary', 'example', 'examples', 'title'].includes(key) && typeof inner !== 'boolean'));
  const result = Object.fromEntries(rest.map(([key, inner]) => [key, bare(inner)]));
  // A property may be called so itself.
  if (properties) result.properties = Object.fromEntries(Object.entries(properties).map(([key, inner]) => [key, bare(inner)]));
  return result;
}

const text = process.env.BERTH_OPENAPI
  ? readFileSync(process.env.BERTH_OPENAPI, 'utf8')
  : execFileSync(process.env.BERTH_SERVER ?? 'berth-server', ['openapi'], { encoding: 'utf8', maxBuffer: 1 << 26 });
const ast = await openapiTS(bare(JSON.parse(text)), { alphabetize: true, defaultNonNullable: false });
const generated = `// Made by \`npm run generate\` from \`berth-server openapi\`; not to be edited.\n${astToString(ast)}`;
if (process.argv.includes('--check')) {
  if (readFileSync(file, 'utf8') !== generated) {
    console.error('web/src/api/schema.d.ts is not what the API says now: run `npm run generate` in web/, then `npm run check`');
    process.exit(1);
  }
} else {
  writeFileSync(file, generated);
}
