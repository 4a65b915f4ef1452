// A service with one leak: a Map of sessions that nobody evicts, and a listener (a closure) for each hundredth of them. Beside it a
// catalogue that stays and requests that come and go. Writes before.heapsnapshot and after.heapsnapshot into DIR, and says in
// truth.json what the leak really is.
//
//     node leak.cjs DIR PRODUCTS SESSIONS_BEFORE SESSIONS_AFTER
//
// About 20 objects and 1.5 KB of snapshot a product, 9 objects and 700 B a session. Writing a snapshot needs about 9 times the heap.
'use strict';
const v8 = require('node:v8');
const fs = require('node:fs');
const path = require('node:path');
const [dir, products, before, after] = [process.argv[2], ...process.argv.slice(3).map(Number)];

class Product {
  constructor(i) {
    this.sku = `SKU-${i}`;
    this.title = `product number ${i} of the catalogue`;
    this.price = i * 1.01 + 0.5;
    this.tags = [`t${i % 97}`, `u${i % 89}`, `v${i}`];
    this.variants = [1, 2, 3].map((n) => ({ name: `${i}/${n}`, stock: { here: n * 7.25, there: i + 0.25 } }));
    this.previous = null;
  }
}

class Session {
  constructor(i) {
    this.id = `session-${i}`;
    this.user = { name: `user ${i}`, email: `user${i}@example.net`, seen: i + 0.5 };
    this.cart = [{ sku: `SKU-${i % 1000}`, quantity: 1.5 + i }];
  }
}

class Service {
  constructor() {
    this.catalogue = [];
    this.sessionCache = new Map();
    this.listeners = [];
    this.served = 0;
  }

  request(i) {
    const session = new Session(i);
    this.sessionCache.set(session.id, session);
    if (i % 100 === 0) this.listeners.push(() => session.user.name);
    const scratch = Array.from({ length: 20 }, (_, n) => ({ n, text: `request ${i} line ${n}` }));
    this.served += scratch.length;
  }
}

global.__app = new Service();
for (let i = 0; i < products; i++) {
  const product = new Product(i);
  // Chains of 64, so that there is depth.
  if (i % 64 !== 0) product.previous = __app.catalogue[i - 1];
  __app.catalogue.push(product);
}

const truth = {};
function snapshot(name) {
  global.gc?.();
  const file = path.join(dir, `${name}.heapsnapshot`);
  const used = process.memoryUsage().heapUsed;
  const start = process.hrtime.bigint();
  v8.writeHeapSnapshot(file);
  truth[name] = {
    heap_used_bytes: used,
    sessions: __app.sessionCache.size,
    file_bytes: fs.statSync(file).size,
    stall_seconds: Number(process.hrtime.bigint() - start) / 1e9,
    rss_bytes: process.memoryUsage().rss,
  };
}

let i = 0;
while (i < before) __app.request(i++);
if (!process.env.ONLY_AFTER) snapshot('before');
while (i < after) __app.request(i++);
snapshot('after');
// The true size of the leak: the heap with it minus the heap without it.
global.gc?.();
const held = process.memoryUsage().heapUsed;
__app.sessionCache.clear();
__app.listeners.length = 0;
global.gc?.();
truth.leak_bytes = held - process.memoryUsage().heapUsed;
fs.writeFileSync(path.join(dir, 'truth.json'), `${JSON.stringify(truth, null, 1)}\n`);
