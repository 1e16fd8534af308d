// A server to develop with: `BERTH_SERVER=… node tests/dev.js [BERTHS]`, then `BERTH_DEV=SOCKET npm run dev`.
import { Stage } from './stage.js';

const stage = await Stage.open();
await stage.fill(Number(process.argv[2] ?? 60)).catch(async (error) => {
  await stage.close();
  throw error;
});
console.log(`BERTH_DEV=${stage.socket} npm run dev`);
