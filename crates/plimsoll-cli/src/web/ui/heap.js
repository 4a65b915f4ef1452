// What grows: the verdicts of days, what heap captures say, and whether captures work. Verdicts come with each snapshot; the trend
// over captures is asked for once a minute at most, and only where there are captures. Names are told to who may know them.

const EVERY_MS = 60000;
const ANSWER_MS = 10000;
const SHOWN = 6;
const KINDS = { owner: "an owner", stack: "a stack", class: "a class", mapping: "a mapping" };

let askedAt = -Infinity;
let trend = null;

const worth = ({ state }) => state === "leaking" || state === "growing";
const total = (by) => Object.values(by ?? {}).reduce((a, b) => a + b, 0);

function told(verdict, words) {
  const rate = verdict.per_hour == null ? "" : ` ${verdict.unit === "bytes" ? words.size(verdict.per_hour) : words.count(Math.round(verdict.per_hour))} an hour`;
  const left = verdict.time_to_limit_seconds;
  const until = left == null ? "" : `, limit in ${words.duration(left)}`;
  const kept = verdict.retention ? ", kept by the allocator: no leak" : "";
  return `${verdict.state}${rate}${until}${kept}`;
}

const kind = ({ state }) => (state === "leaking" ? "bad" : "warn");

async function ask() {
  if (performance.now() - askedAt < EVERY_MS) return;
  askedAt = performance.now();
  try {
    const answer = await fetch("api/memory/trend", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    trend = answer.ok ? await answer.json() : null;
  } catch {
    trend = null;
  }
}

function captures(one, now, words) {
  const parts = [`${words.count(one.kept)} ${one.kept === 1 ? "capture" : "captures"}, ${words.size(one.kept_bytes)}`];
  if (one.last) parts.push(`${one.last.method} ${words.duration(Math.max(0, now - one.last.at_unix))} ago`);
  if (total(one.refused_total)) parts.push(`${words.count(total(one.refused_total))} refused`);
  if (total(one.failed_total)) parts.push(`${words.count(total(one.failed_total))} failed`);
  if (one.running) parts.push(`one runs (${one.running})`);
  return parts.join(" · ");
}

/** Shows what grows. `words` are the page's own: size, count, duration, rows. */
export function heap(snapshot, words) {
  const $ = (id) => document.getElementById(id);
  const one = snapshot.heap;
  const figures = snapshot.verdicts ?? [];
  $("grows").hidden = !one && figures.length === 0;
  if (one?.kept > 0) ask();
  const growing = figures.filter(worth).slice(0, SHOWN);
  const of = (kinds) =>
    (trend?.judged ?? [])
      .filter((judged) => kinds.includes(judged.kind))
      .flatMap((judged) => judged.verdicts.filter(worth).map((verdict) => [judged.kind, verdict]));
  // A class that grows is the same bytes as its owner.
  const holders = of(["owner", "stack"]);
  const found = holders.length ? holders : of(["class", "mapping"]);
  found.sort(([, a], [, b]) => (b.state === "leaking") - (a.state === "leaking") || (b.per_hour ?? 0) - (a.per_hour ?? 0));
  const judged = figures.some(({ state }) => state !== "insufficient-data");
  words.rows("verdicts", [
    ["of the process", growing.length ? null : judged ? "nothing grows" : "too few readings to say"],
    ...growing.map((verdict) => [verdict.key, told(verdict, words), kind(verdict)]),
    ...found.slice(0, SHOWN).map(([of, verdict]) => [verdict.key || `${KINDS[of]} (names need the token)`, told(verdict, words), kind(verdict)]),
    ["captures", one ? captures(one, snapshot.at_unix, words) : null],
    ["captures do not work as asked", one?.self_test && one.self_test !== "ok" ? one.self_test : null, "bad"],
  ]);
}
