// A heap that grows without one new object: a Map and an Array of small integers, from 1,000 to 2,000,000 entries each. Writes
// before.heapsnapshot and after.heapsnapshot into DIR.
//
//     node --expose-gc inplace.cjs DIR [ENTRIES]
'use strict';
const v8 = require('node:v8');
const path = require('node:path');
const dir = process.argv[2];
const entries = Number(process.argv[3] ?? 2_000_000);

global.__app = { counters: new Map(), series: [] };
function grow(from, to) {
  for (let i = from; i < to; i++) {
    __app.counters.set(i, i & 1023);
    __app.series.push(i & 1023);
  }
}
function snapshot(name) {
  global.gc?.();
  v8.writeHeapSnapshot(path.join(dir, `${name}.heapsnapshot`));
}
grow(0, 1000);
snapshot('before');
grow(1000, entries);
snapshot('after');
