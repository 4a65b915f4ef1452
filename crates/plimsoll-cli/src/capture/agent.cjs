// What `plimsoll run --heap=profile` (or full) loads into Node by NODE_OPTIONS=--require: samples allocations (one in 512 KiB, no
// cost that could be measured) and answers its supervisor over a Unix socket. It keeps no process alive, prints nothing, and
// throws nothing: a service that it cannot serve runs on without it. The protocol is that of capture/agent.rs.
'use strict';
(() => {
  const path = process.env.PLIMSOLL_HEAP_SOCKET;
  let isMainThread = true;
  try {
    ({ isMainThread } = require('node:worker_threads'));
  } catch {}
  if (!path || !isMainThread) return;
  // A snapshot that cannot be written (a disk that is full by now) throws out of Node's own handler, which would end the program.
  try {
    const [, signal] = /--heapsnapshot-signal[= ](SIG\w+)/.exec(process.env.NODE_OPTIONS);
    for (const write of process.listeners(signal).filter(({ name }) => name === 'doWriteHeapSnapshot')) {
      process.off(signal, write);
      process.on(signal, () => {
        try {
          write();
        } catch {}
      });
    }
  } catch {}
  const INTERVAL = 512 * 1024;
  const RETRY_MS = 5000;
  const SMALLEST = 16;
  let session;
  try {
    const { Session } = require('node:inspector');
    session = new Session();
    session.connect();
    session.post('HeapProfiler.startSampling', { samplingInterval: INTERVAL });
  } catch {
    session = undefined;
  }
  const net = require('node:net');
  const fs = require('node:fs');

  // A sample of an object of S bytes stands for round(1 / (1 - exp(-S / INTERVAL))) objects of S bytes, and only the product P is
  // told. P - INTERVAL is at most S, so P / (P - INTERVAL) objects are at least as many as there were: an upper bound.
  const objects = (samples) => {
    let count = 0;
    for (const { size } of samples) {
      const least = size - INTERVAL;
      count += least >= INTERVAL ? 1 : size / Math.max(least, SMALLEST);
    }
    return Math.ceil(count);
  };

  const profile = (answer) => {
    if (!session) return answer('err this Node has no inspector');
    session.post('HeapProfiler.getSamplingProfile', (error, result) => {
      if (error) return answer(`err ${error.message}`);
      answer(undefined, result.profile);
    });
  };

  const ask = (line, reply) => {
    const space = line.indexOf(' ');
    const verb = space < 0 ? line : line.slice(0, space);
    profile((failed, found) => {
      if (failed) return reply(failed);
      const figures = `objects=${objects(found.samples)} heap=${process.memoryUsage().heapUsed}`;
      if (verb === 'count') return reply(`ok ${figures}`);
      if (verb !== 'profile') return reply('err unknown question');
      fs.writeFile(line.slice(space + 1), JSON.stringify(found), { mode: 0o600, flag: 'wx' }, (error) => {
        reply(error ? `err ${error.message}` : `ok ${figures}`);
      });
    });
  };

  const connect = () => {
    let text = '';
    const socket = net.connect(path);
    socket.unref();
    socket.setEncoding('utf8');
    socket.on('connect', () => socket.write(`plimsoll-heap/1 heapprofile node ${process.version}\n`));
    socket.on('data', (piece) => {
      text += piece;
      if (text.length > 8192) return socket.destroy();
      for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 1);
        ask(line, (answer) => socket.write(`${answer.replace(/\s+/g, ' ')}\n`));
      }
    });
    socket.on('error', () => {});
    socket.on('close', () => setTimeout(connect, RETRY_MS).unref());
  };
  connect();
})();
