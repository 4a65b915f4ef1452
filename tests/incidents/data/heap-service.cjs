// The services of incident 3, its leak part: node heap-service.cjs KIND PORT_FILE
//
// GET /warm  answers as a step does, without what the kind does: so that a day begins with a program that has loaded and compiled
// KIND   what a step (GET /step: half an hour of load, made at once) does beside its garbage
// leak       remembers 300 more sessions of about 3.4 KB in a Map that nobody empties
// plateau    the same, in a cache that drops its oldest beyond 3,000 sessions
// retention  bursts that take memory outside of the heap, each a little higher than any before, and drop all of it but one block of
//            16 KB: the last one, behind which nothing lies, so the allocator gives nothing back of what is free before it; the blocks of
//            the last eight bursts are kept
// inplace    64 Maps, one a customer, and one Array that are there from the start grow by 20,000 small numbers each
// documents  25 MB more of documents of 2 KB each (for the safety of captures, not for a day)
'use strict';
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const v8 = require('node:v8');
const vm = require('node:vm');
const [kind, portFile] = process.argv.slice(2);
v8.setFlagsFromString('--expose-gc');
const collect = vm.runInNewContext('gc');

class Session {
  constructor(id) {
    this.id = id;
    this.user = { name: `user-${id}`, roles: ['reader', id % 7 ? 'writer' : 'admin'] };
    this.cart = Array.from({ length: 8 }, (_, n) => ({ sku: `sku-${id}-${n}`, price: id + n / 10 }));
    this.page = Buffer.alloc(900, 65 + (id % 26)).toString('latin1') + id;
    this.last = new Array(128).fill(id);
  }
}

// How much higher each burst of retention is, in bytes, and when it gives up: 800 MB.
const BURST = 3e6;
const BLOCK = 16000;
const BLOCKS_MAX = 50000;

const app = {
  catalog: Array.from({ length: 12000 }, (_, n) => ({ sku: `sku-${n}`, title: `a thing of number ${n}`, stock: n % 50 })),
  sessionCache: new Map(),
  recentCache: new Map(),
  // Few customers are quiet and none is as busy as another, so their tables do not double all at once.
  index: Array.from({ length: 64 }, () => new Map()),
  readings: [],
};
globalThis.__app = app;
const held = [];
let highest = 0;
let sessions = 0;
let steps = 0;

const kinds = {
  leak() {
    for (let n = 0; n < 300; n++) app.sessionCache.set(`session-${++sessions}`, new Session(sessions));
  },
  plateau() {
    for (let n = 0; n < 300; n++) app.recentCache.set(`session-${++sessions}`, new Session(sessions));
    for (const key of app.recentCache.keys()) {
      if (app.recentCache.size <= 3000) break;
      app.recentCache.delete(key);
    }
  },
  retention() {
    const rss = process.memoryUsage.rss;
    highest = Math.max(highest, rss()) + BURST;
    const burst = [];
    let last;
    while (burst.length < BLOCKS_MAX && !(last && rss() >= highest)) {
      // What was free before is used up first. 2 MB that make the process larger by nearly as much are new: they lie at the end.
      const before = rss();
      for (let n = 0; n < 128; n++) burst.push(Buffer.allocUnsafeSlow(BLOCK).fill(1));
      if (rss() - before > 1.4e6) last = burst.at(-1);
    }
    held[steps % 8] = last;
  },
  inplace() {
    for (let n = 0; n < 20000; n++) {
      const customer = Math.floor(64 * Math.cbrt((n * 7919) % 20000 / 20000));
      app.index[customer].set(app.readings.length, n);
      app.readings.push(n);
    }
  },
};
kinds.documents = () => {
  for (let n = 0; n < 12500; n++) held.push(crypto.randomBytes(1000).toString('hex'));
};
if (!kinds[kind]) {
  console.error(`heap-service: no kind ${kind}; one of ${Object.keys(kinds).join(' ')}`);
  process.exit(64);
}

const churn = () => {
  let sum = 0;
  for (let n = 0; n < 2000; n++) sum += new Session(n).page.length;
  return sum;
};

const server = http.createServer((request, response) => {
  if (request.url === '/step' || request.url === '/warm') {
    churn();
    if (request.url === '/step') {
      kinds[kind]();
      steps++;
    }
    if (kind !== 'documents') {
      // What one collection found dead outside of the heap is freed when the next one begins.
      collect();
      collect();
    }
  }
  response.end(`${JSON.stringify({ steps, sessions, held: held.length, ...process.memoryUsage() })}\n`);
});
server.listen(0, '127.0.0.1', () => {
  fs.writeFileSync(`${portFile}.new`, String(server.address().port));
  fs.renameSync(`${portFile}.new`, portFile);
});
process.on('SIGTERM', () => process.exit(0));
