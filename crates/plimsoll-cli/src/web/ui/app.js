// The page: asks /api/status once a second and shows what it says. Nothing is kept but SAMPLES_MAX samples in this tab;
// nothing loads from elsewhere; text from the program is only ever set as text. An answer that fails or is old is said.

import { heap } from "./heap.js";
import { report } from "./report.js";

const EVERY_MS = 1000;
const ANSWER_MS = 3000;
const SAMPLES_MAX = 600;
const WINDOW_MIN_S = 60;
const WINDOW_MAX_S = 600;
const DECISIONS_MAX = 30;

const $ = (id) => document.getElementById(id);
const samples = [];
let answeredAt = 0;
let startedAt = 0;
let cursorX = null;
let last = null;

// Words

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function size(bytes) {
  if (bytes == null) return "unknown";
  let unit = 0;
  let n = bytes;
  while (n >= 1024 && unit < UNITS.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${n} B` : `${n.toFixed(1)} ${UNITS[unit]}`;
}

function duration(s) {
  if (s == null || !Number.isFinite(s)) return "unknown";
  if (s < 1) return `${Math.round(Math.max(0, s) * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  const whole = Math.floor(s);
  if (whole < 60) return `${whole} s`;
  const two = (n, unit, rest, small) => (rest ? `${n} ${unit} ${rest} ${small}` : `${n} ${unit}`);
  if (whole < 3600) return two(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return two(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return two(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

function rate(bytesPerSecond) {
  const n = Math.abs(bytesPerSecond);
  const [text, unit] = size(n < 1024 ? Math.round(n) : n).split(" ");
  return `${bytesPerSecond < 0 ? "−" : "+"}${Number(text) >= 10 ? Math.round(text) : text} ${unit}/s`;
}

const count = (n) => (n == null ? "unknown" : n.toLocaleString("en-US"));
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const clock = (unix) => new Date(unix * 1000).toLocaleTimeString([], { hour12: false });

// Elements

function set(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

function show(id, yes) {
  $(id).hidden = !yes;
}

/** Rows of [label, value, class] into a definition list; what has no value is left out. */
function rows(id, entries) {
  const fresh = document.createDocumentFragment();
  for (const [label, value, kind] of entries) {
    if (value == null || value === "") continue;
    const row = $("row").content.cloneNode(true);
    row.querySelector("dt").textContent = label;
    row.querySelector("dd").textContent = value;
    if (kind) row.querySelector(kind.startsWith("dot") ? "dt" : "dd").className = kind;
    fresh.append(row);
  }
  $(id).replaceChildren(fresh);
}

// Parts of the page

function headline(s) {
  set("name", s.name);
  const level = !s.child ? s.state : s.governor.governs ? s.governor.level : s.governor.blind ? "blind" : "observes";
  document.title = `${level} · ${s.name}`;
  set("state", s.state === "stale" ? `stale, ${duration(s.supervisor.heartbeat_age_seconds)}` : s.state.replace("-", " "));
  $("state").dataset.state = s.state;
  set("uptime", s.child ? `up ${duration(s.child.uptime_seconds)}` : "");
  set("supervisor", `plimsoll ${s.supervisor.version} · pid ${s.supervisor.pid}${s.supervisor.adopted ? ", adopted" : ""}`);
  set("level", s.state === "stale" ? "last known" : s.governor.blind ? "blind" : level);
  show("level", s.child != null);
  const unknown = s.state === "stale" || !s.child;
  document.body.dataset.level = unknown ? "unknown" : s.governor.blind ? "blind" : s.governor.level;
  document.body.dataset.old = String(s.state === "stale");
}

function banner(s) {
  const problems = [...s.warnings];
  const unread = s.child ? s.memory.unread : null;
  if (unread) problems.unshift(`memory cannot be read: ${unread}`);
  if (s.state === "stale") problems.unshift("the supervisor gives no sign of life: nothing here is the present");
  if (s.restarts.crash_loop) problems.unshift("the program crashes in a loop");
  if (s.logs.degraded) problems.push(`logs: ${s.logs.degraded}`);
  set("banner", problems.join(" · "));
  show("banner", problems.length > 0);
  $("banner").dataset.bad = String(s.state === "stale" || s.restarts.crash_loop || unread != null);
}

function budget(s) {
  const { charged_bytes: charged, budget_bytes: limit, kernel_limit_bytes: kernel, marks_bytes: marks } = s.memory;
  set("charged", s.child ? size(charged) : "nothing runs");
  const percent = s.child && charged != null && limit ? `  ${Math.floor((charged / limit) * 100)} %` : "";
  set("budget", limit ? `${s.child ? "of" : "budget"} ${size(limit)}${percent}` : "no budget: observes only");
  const g = s.governor;
  const known = s.child != null && g.growth_bytes_per_second != null;
  const sure = known && (g.growth_confidence_ratio ?? 0) >= 0.5;
  const grows = sure && Math.abs(g.growth_bytes_per_second) >= 16384;
  const word = !s.child ? "" : !known ? "growth not known yet" : sure ? "steady" : "no clear trend";
  set("growth", grows ? rate(g.growth_bytes_per_second) : word);
  set("limit", grows && g.time_to_limit_seconds != null ? `budget in ${duration(g.time_to_limit_seconds)}` : "");
  show("bar", Boolean(limit));
  const end = Math.max(kernel ?? 0, limit ?? 0);
  if (!limit || !marks) return;
  const at = (bytes) => `${Math.min(100, (bytes / end) * 100)}%`;
  $("fill").style.width = at(s.child ? (charged ?? 0) : 0);
  $("reserve").style.left = at(limit);
  $("bar").setAttribute("aria-valuemax", limit);
  $("bar").setAttribute("aria-valuenow", charged ?? 0);
  marks.forEach((bytes, i) => {
    $(`tick-${i}`).style.left = at(bytes);
    $(`mark-${i}`).style.left = at(bytes);
    set(`mark-${i}`, `${Math.round((bytes / limit) * 100)} %`);
  });
  set("kernel", kernel && kernel > limit ? `kernel kills at ${size(kernel)}` : "");
}

const KINDS = [
  ["anon", "anonymous"],
  ["shmem", "shared"],
  ["swap", "swap"],
  ["unevictable", "unevictable"],
  ["kernel", "kernel"],
  ["file", "cache (does not count)"],
];

function kinds(s) {
  const entries = KINDS.map(([kind, label]) => [kind, label, s.memory[`${kind}_bytes`]]).filter(([, , n]) => n);
  const total = sum(entries.map(([, , n]) => n)) || 1;
  $("kinds-bar").replaceChildren(
    ...entries.map(([kind, , n]) => {
      const part = document.createElement("i");
      part.className = `kind-${kind}`;
      part.style.width = `${(n / total) * 100}%`;
      return part;
    }),
  );
  rows("kinds", entries.map(([kind, label, n]) => [label, size(n), `dot kind-${kind}`]));
}

const STREAMS = [
  ["stdout", "stdout"],
  ["stderr", "stderr"],
  ["plimsoll", "notes of Plimsoll"],
];

function facts(s) {
  const fds = s.child?.fds;
  set("fds-total", fds ? `${count(fds.total)}${fds.truncated ? "+" : ""}` : "–");
  set("fds-note", fds ? (fds.growing ? `${fds.growing.replace("_", " ")} is growing` : "") : "not counted yet");
  const kindsOf = ["file", "socket", "pipe", "anon_inode", "proc", "device", "other"];
  rows(
    "fds",
    kindsOf
      .filter((kind) => fds?.[kind])
      .sort((a, b) => fds[b] - fds[a])
      .map((kind) => [kind.replace("_", " "), count(fds[kind]), fds.growing === kind ? "warn" : ""]),
  );

  const streams = Object.values(s.logs.streams);
  const lost = sum(streams.map((v) => v.dropped_lines_total));
  const lines = s.logs.lines_per_second;
  set("log-rate", lines == null ? "–" : lines < 10 ? lines.toFixed(1) : count(Math.round(lines)));
  rows("logs", [
    ...STREAMS.filter(([name]) => s.logs.streams[name]).map(([name, label]) => [
      label,
      `${count(s.logs.streams[name].lines_total)} lines`,
    ]),
    ["lost", count(lost), lost ? "bad" : ""],
    ["not echoed", s.logs.echo_dropped_lines_total ? count(s.logs.echo_dropped_lines_total) : null],
    ["on disk", size(s.logs.database_bytes + s.logs.spool_bytes)],
    ["in the ring", `${size(s.logs.ring_used_bytes)} of ${size(s.logs.ring_capacity_bytes)}`],
  ]);

  rows("process", [
    ["command", s.child?.comm],
    ["pid", s.child ? String(s.child.pid) : "none now"],
    ["processes", s.child?.processes == null ? null : count(s.child.processes)],
    ["threads", s.child?.threads == null ? null : count(s.child.threads)],
    ["held by", s.group.kind],
    ["OOM kills", s.group.oom_kills == null ? null : count(s.group.oom_kills), s.group.oom_kills ? "bad" : ""],
    ["peak", s.memory.peak_bytes == null ? null : size(s.memory.peak_bytes)],
    ["pressure", s.pressure ? `${s.pressure.some_avg10.toFixed(1)} % of 10 s` : null, s.pressure?.some_avg10 > 10 ? "warn" : ""],
  ]);

  const reasons = Object.entries(s.restarts.by_reason).filter(([, n]) => n);
  set("restarts", count(s.restarts.total));
  set("restart-reasons", reasons.map(([reason, n]) => `${reason} ${count(n)}`).join(", "));
  const exit = s.last_exit;
  rows("last-exit", [
    ["next start", s.state !== "backing-off" || s.restarts.next_in_seconds == null ? null : `in ${duration(s.restarts.next_in_seconds)}`, "warn"],
    ["last exit", exit?.reason ?? "none", exit && exit.reason !== "exit" ? "bad" : ""],
    ["code", exit?.code == null ? null : String(exit.code)],
    ["signal", exit?.signal == null ? null : String(exit.signal)],
    ["when", exit ? `${duration(s.at_unix - exit.at_unix)} ago` : null],
    ["lived", exit ? duration(exit.uptime_seconds) : null],
    ["policy", s.restarts.policy],
  ]);

  const self = s.supervisor;
  rows("self", [
    ["memory", self.rss_bytes == null ? null : size(self.rss_bytes)],
    ["private", self.private_bytes == null ? null : size(self.private_bytes)],
    ["CPU", self.cpu_seconds == null ? null : `${duration(self.cpu_seconds)} in ${duration(self.uptime_seconds)}`],
    ["readings", count(s.governor.samples_total)],
    ["one takes", s.governor.sample_cost_seconds == null ? null : `${(s.governor.sample_cost_seconds * 1e6).toFixed(1)} µs`],
    ["late readings", count(s.governor.missed_ticks_total)],
    ["scheduling", s.governor.scheduling],
  ]);
}

// Who prints how much: each stream with its rate and share, and the templates that make most of its bytes.

function percent(ratio, margin) {
  const n = ratio * 100;
  if (margin * 100 >= 0.5) return `${Math.round(n)} ± ${Math.max(1, Math.round(margin * 100))} %`;
  if (n > 0 && n < 1) return "< 1 %";
  return `${n > 99 && n < 99.95 ? n.toFixed(1) : Math.round(n)} %`;
}

const FLOOD_SHARE = 0.5;
const FLOOD_LINES_PER_S = 100;

function volume(s) {
  const volume = s.logs.volume;
  const streams = Object.entries(volume?.streams ?? {}).sort(([, a], [, b]) => b.share_ratio - a.share_ratio);
  show("volume-card", streams.length > 0);
  const fresh = document.createDocumentFragment();
  let hidden = false;
  for (const [name, stream] of streams) {
    const item = $("printer").content.cloneNode(true).firstElementChild;
    item.querySelector("b").textContent = name;
    const facts = [
      `${percent(stream.share_ratio, 0)} of the bytes`,
      `${count(stream.lines_per_second < 10 ? Number(stream.lines_per_second.toFixed(1)) : Math.round(stream.lines_per_second))} lines/s`,
      rate(stream.bytes_per_second).replace("+", ""),
    ];
    if (stream.repeated_ratio >= 0.01) facts.push(`${percent(stream.repeated_ratio, 0)} repeat the line before`);
    if (stream.looked_at_lines < stream.lines) facts.push(`a sample of ${count(stream.looked_at_lines)} lines`);
    item.querySelector("span").textContent = facts.join(" · ");
    const bar = item.querySelector(".stack");
    const list = item.querySelector("ol");
    stream.templates.forEach((template, i) => {
      const part = document.createElement("i");
      part.className = `template-${i}`;
      part.style.width = `${template.share_ratio * 100}%`;
      bar.append(part);
      const entry = $("template").content.cloneNode(true).firstElementChild;
      entry.className = `template-${i}`;
      const flood = template.share_ratio >= FLOOD_SHARE && template.lines_per_second >= FLOOD_LINES_PER_S;
      entry.querySelector(".share").textContent = percent(template.share_ratio, template.margin_ratio);
      if (flood && stream.share_ratio >= FLOOD_SHARE) entry.classList.add("warn");
      hidden ||= template.text == null;
      entry.querySelector("code").textContent = template.text ?? `${count(Math.round(template.lines_per_second))} lines/s`;
      if (template.text === "") entry.querySelector("code").textContent = "(empty lines)";
      list.append(entry);
    });
    fresh.append(item);
  }
  $("volume").replaceChildren(fresh);
  const notes = [`In the last ${duration(volume?.span_seconds)}.`];
  if (hidden) notes.push(`What is printed is not shown here; on the machine: plimsoll status ${s.name}.`);
  if (volume?.limit) notes.push(`Each stream is limited to ${volume.limit}.`);
  set("volume-note", notes.join(" "));
}

function decisions(entries, now) {
  const fresh = document.createDocumentFragment();
  const today = new Date(now * 1000).toDateString();
  for (const entry of [...entries].reverse()) {
    const item = $("entry").content.cloneNode(true).firstElementChild;
    const when = new Date(entry.at_unix * 1000);
    const time = item.querySelector("time");
    time.dateTime = when.toISOString();
    time.textContent = when.toDateString() === today ? clock(entry.at_unix) : when.toLocaleDateString();
    const word = item.querySelector("b");
    word.textContent = entry.kind === "level" ? entry.level : entry.kind;
    word.dataset.level = entry.kind === "level" ? entry.level : entry.kind;
    item.querySelector("span").textContent = entry.text;
    fresh.append(item);
  }
  $("decisions").replaceChildren(fresh);
  show("no-decisions", entries.length === 0);
}

// The chart

function remember(s) {
  if (s.state === "stale" || s.memory.charged_bytes == null || !s.child) return;
  // The figure is as old as its reading; the same reading again is no new sample.
  const at = s.at_unix - (s.governor.reading_age_seconds ?? 0);
  const before = samples.at(-1);
  if (before && before.pid === s.child.pid && at - before.at < 0.05) return;
  samples.push({ at, bytes: s.memory.charged_bytes, pid: s.child.pid });
  if (samples.length > SAMPLES_MAX) samples.shift();
}

function chart() {
  const svg = $("chart");
  const { width, height } = svg.getBoundingClientRect();
  if (!last || width === 0) return;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const memory = last.memory;
  const now = last.at_unix;
  const window = Math.min(WINDOW_MAX_S, Math.max(WINDOW_MIN_S, samples.length ? now - samples[0].at : 0));
  const shown = samples.filter((sample) => sample.at >= now - window);
  const highest = Math.max(1, ...shown.map((sample) => sample.bytes));
  const top = Math.max(highest, memory.budget_bytes ?? 0) * 1.12;
  const floor = height - 18;
  const x = (at) => Math.round((1 - (now - at) / window) * (width - 8) * 10) / 10 + 2;
  const y = (bytes) => Math.round((floor - (bytes / top) * (floor - 6)) * 10) / 10;
  const set$ = (id, attributes) => Object.entries(attributes).forEach(([key, value]) => $(id).setAttribute(key, value));

  set$("grid", { d: `M0 ${floor}H${width}` });
  const marks = memory.marks_bytes ?? [];
  set$("mark-lines", { d: marks.slice(0, 2).map((bytes) => `M0 ${y(bytes)}H${width}`).join("") });
  set$("budget-line", { d: memory.budget_bytes ? `M0 ${y(memory.budget_bytes)}H${width}` : "" });
  set$("budget-text", { x: 4, y: memory.budget_bytes ? y(memory.budget_bytes) - 5 : 0 });
  set("budget-text", memory.budget_bytes ? `budget ${size(memory.budget_bytes)}` : "");
  set$("left-text", { x: 4, y: height - 4 });
  set("left-text", `${duration(window)} ago`);
  set$("right-text", { x: width - 6, y: height - 4 });

  // A new process begins a new line; where one ended stays marked.
  let line = "";
  let area = "";
  let ends = "";
  let begin = null;
  shown.forEach((sample, i) => {
    const next = shown[i + 1];
    const point = `${x(sample.at)} ${y(sample.bytes)}`;
    if (begin === null) {
      begin = sample;
      line += `M${point}`;
      area += `M${x(sample.at)} ${floor}L${point}`;
    } else {
      line += `L${point}`;
      area += `L${point}`;
    }
    if (!next || next.pid !== sample.pid) {
      area += `L${x(sample.at)} ${floor}Z`;
      if (next || last.child?.pid !== sample.pid) ends += `M${x(sample.at)} ${y(sample.bytes)}V${floor}`;
      begin = null;
    }
  });
  set$("line", { d: line });
  set$("area", { d: area });
  set$("ends", { d: ends });
  const newest = shown.at(-1);
  set$("now", newest ? { cx: x(newest.at), cy: y(newest.bytes) } : { cx: -9, cy: -9 });

  const under = cursorX === null ? null : nearest(shown, x, cursorX);
  set$("cursor", { d: under ? `M${x(under.at)} 0V${floor}` : "" });
  set("cursor-text", under ? `${size(under.bytes)} at ${clock(under.at)}` : "");
  if (under) {
    const right = x(under.at) > width / 2;
    set$("cursor-text", { x: x(under.at) + (right ? -8 : 8), y: floor - 8, "text-anchor": right ? "end" : "start" });
  }
}

function nearest(shown, x, at) {
  return shown.reduce((best, s) => (best && Math.abs(x(best.at) - at) <= Math.abs(x(s.at) - at) ? best : s), null);
}

// Asking

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function look() {
  try {
    const [status, newest] = await Promise.all([ask("api/status"), ask(`api/decisions?max=${DECISIONS_MAX}`)]);
    last = status;
    answeredAt = performance.now();
    remember(status);
    headline(status);
    banner(status);
    budget(status);
    kinds(status);
    facts(status);
    volume(status);
    heap(status, { size, count, duration, rows });
    report(status, { size, count, duration, rows });
    decisions(newest, status.at_unix);
    chart();
    set("right-text", "now");
  } catch {
    const silence = (performance.now() - (answeredAt || startedAt)) / 1000;
    document.body.dataset.level = "unknown";
    document.body.dataset.old = "true";
    set("level", "last known");
    set("growth", "");
    set("limit", "");
    if (last) set("right-text", clock(last.at_unix));
    document.title = `no answer · ${last?.name ?? "plimsoll"}`;
    $("state").dataset.state = "stale";
    set("state", "no answer");
    set("banner", `the supervisor does not answer, for ${duration(silence)}: what you see is old`);
    $("banner").dataset.bad = "true";
    show("banner", true);
  }
  // A page that nobody looks at asks less often; the browser slows the timer too.
  setTimeout(look, document.hidden ? EVERY_MS * 5 : EVERY_MS);
}

$("chart").addEventListener("pointermove", (event) => {
  cursorX = event.offsetX;
  chart();
});
$("chart").addEventListener("pointerleave", () => {
  cursorX = null;
  chart();
});
new ResizeObserver(chart).observe($("chart"));
startedAt = performance.now();
look();
