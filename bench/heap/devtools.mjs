// What DevTools' own engine says of a snapshot, as JSON: every class with count, own and retained bytes, and the objects that retain most.
// Needs the npm package heap-snapshot-toolkit in the directory NODE_PEERS (bench/heap/peers installs it).
//
//     NODE_PEERS=DIR node --max-old-space-size=16000 devtools.mjs FILE [OBJECTS]
import { createReadStream, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

console.time = console.timeEnd = console.warn = console.log = () => {};
const peers = createRequire(path.join(path.resolve(process.env.NODE_PEERS), 'package.json'));
const { parse } = await import(pathToFileURL(peers.resolve('heap-snapshot-toolkit')));
const [file, objects] = [process.argv[2], Number(process.argv[3] ?? 100)];
const snapshot = await parse(createReadStream(file, 'utf-8'));
const classes = Object.entries(snapshot.getAggregatesByClassKey(true, 'allObjects')).map(([key, row]) => ({
  key, name: row.name, count: row.count, bytes: row.self, retained_bytes: row.maxRet,
}));
const order = Array.from({ length: snapshot.nodeCount }, (_, i) => i);
const retained = snapshot.retainedSizes;
order.sort((a, b) => retained[b] - retained[a]);
const largest = order.slice(0, objects).map((ordinal) => {
  const node = snapshot.createNode(ordinal * snapshot.nodeFieldCount);
  return { id: node.id(), name: node.name(), bytes: node.selfSize(), retained_bytes: node.retainedSize() };
});
let text = Buffer.from(JSON.stringify({ nodes: snapshot.nodeCount, classes, largest }));
while (text.length > 0) text = text.subarray(writeSync(1, text));
