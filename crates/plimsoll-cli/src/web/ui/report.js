// What the program says of itself: readings, accounts, queues, reclaim, last words. Shown only when it says something; text
// is only ever set as text, and lists end where a report does.

const ACCOUNTS_SHOWN = 8;
const LOSERS_SHOWN = 6;
const OLD_S = 5;

const lost = (producer) => sum([...Object.values(producer.dropped_items_total), ...Object.values(producer.refused_items_total)]);
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text != null) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** One bar of parts, each as wide as its share of `whole`; the rest is empty. */
function bar(parts, whole) {
  const made = element("div", null, "stack");
  parts.filter(([bytes]) => bytes > 0).forEach(([bytes, shade]) => {
    const part = element("i");
    part.style.width = `${Math.min(100, (bytes / (whole || 1)) * 100)}%`;
    part.style.setProperty("--kind", shade);
    made.append(part);
  });
  return made;
}

/** Shades of one colour, the largest strongest. */
const shade = (n) => `color-mix(in srgb, var(--kind-anon) ${Math.max(25, 100 - n * 12)}%, var(--card))`;

function readings(report, words) {
  const { size, duration } = words;
  const signed = (n) => (n == null ? null : `${n < 0 ? "−" : ""}${size(Math.abs(n))}`);
  return [
    ["protected", report.protected_bytes == null ? null : size(report.protected_bytes)],
    ["live (allocator)", report.live_bytes == null ? null : size(report.live_bytes)],
    ["accounted", report.accounted_bytes == null ? null : size(report.accounted_bytes)],
    ["retained", signed(report.retained_bytes)],
    ["unaccounted", signed(report.unaccounted_bytes)],
    ["leaves at", report.threshold_bytes == null ? null : size(report.threshold_bytes)],
    ["stage", report.leaving ? "leaving for memory" : report.soft ? "soft" : null, report.leaving ? "bad" : "warn"],
    ["reported", report.age_seconds >= OLD_S ? `${duration(report.age_seconds)} ago` : null, "warn"],
  ];
}

function accounts(report, words) {
  const shown = report.accounts.slice(0, ACCOUNTS_SHOWN);
  const more = report.accounts_count - shown.length;
  const rest = (report.accounted_bytes ?? 0) - sum(shown.map((one) => one.held_bytes));
  const refused = (one) => ["refused", one.refused_total ? words.count(one.refused_total) : null, "warn"];
  const entries = shown.flatMap((one) => [[one.name, words.size(one.held_bytes)], refused(one)]);
  if (more > 0) entries.push([`${words.count(more)} more`, words.size(Math.max(0, rest))]);
  return entries;
}

function queue(one, words) {
  const { size, count, duration } = words;
  const item = element("li");
  const head = element("p", null, "row");
  head.append(element("b", one.name), element("span", `${count(one.items)} of ${one.max_items == null ? "any" : count(one.max_items)}`));
  head.append(element("span", one.max_bytes == null ? size(one.bytes) : `${size(one.bytes)} of ${size(one.max_bytes)}`));
  if (one.oldest_seconds != null) head.append(element("span", `oldest ${duration(one.oldest_seconds)}`, one.oldest_seconds >= 1 ? "warn" : ""));
  const total = sum(one.producers.map(lost));
  head.append(element("span", total ? `${count(total)} lost` : "none lost", total ? "bad end" : "quiet end"));
  const fill = Math.max(one.bytes / (one.max_bytes || Infinity), one.items / (one.max_items || Infinity));
  item.append(head, bar([[fill, fill > 0.8 ? "var(--warn)" : "var(--kind-anon)"]], 1));
  const losers = one.producers.filter(lost).slice(0, LOSERS_SHOWN);
  losers.forEach((producer) => {
    const reasons = [
      ...Object.entries(producer.dropped_items_total).map(([reason, n]) => `${count(n)} dropped (${reason})`),
      ...Object.entries(producer.refused_items_total).map(([reason, n]) => `${count(n)} refused (${reason})`),
    ];
    item.append(element("p", `${producer.name}: ${reasons.join(", ")} of ${count(producer.accepted_items_total + lost(producer))}`, "quiet"));
  });
  return item;
}

function reclaim(one, words) {
  if (!one) return [];
  const { size, count, duration } = words;
  const late = one.stores.filter((store) => store.late_seconds != null);
  return [
    ["ordered", size(one.ordered_bytes_total)],
    ["given", size(one.claimed_bytes_total)],
    ["in flight", one.in_flight_bytes ? size(one.in_flight_bytes) : null],
    ["stuck", one.stuck ? "giving back does not help" : null, "bad"],
    ...late.map((store) => [store.name, `late for ${duration(store.late_seconds)}`, "bad"]),
    ["purges", one.purges_total ? count(one.purges_total) : null],
  ];
}

/** Shows what the snapshot holds of it. `words` are the page's own: size, count, duration, rows. */
export function report(snapshot, words) {
  const $ = (id) => document.getElementById(id);
  const said = snapshot.reports.processes[0];
  const alive = said != null && snapshot.child != null;
  $("own-readings").hidden = !alive;
  $("own-accounts").hidden = !alive || said.accounts.length === 0;
  $("own-queues").hidden = !alive || said.queues.length === 0;
  $("own-reclaim").hidden = !alive || !said.reclaim;
  const notify = snapshot.reports.notify;
  const others = snapshot.reports.processes.length - 1;
  if (alive) {
    words.rows("readings", [
      ...readings(said, words),
      ["ready", notify ? (notify.ready ? "yes" : "not yet") : null],
      ["others report", others > 0 ? words.count(others) : null],
    ]);
    const held = said.accounts.map((one, n) => [one.held_bytes, shade(n)]);
    $("accounts-bar").replaceChildren(...bar(held, said.live_bytes ?? said.accounted_bytes).childNodes);
    words.rows("accounts", accounts(said, words));
    $("queues").replaceChildren(...said.queues.map((one) => queue(one, words)));
    words.rows("reclaim", reclaim(said.reclaim, words));
    words.rows("gauges", said.gauges.map((one) => [one.name, words.count(one.value)]));
  }
  const leaving = snapshot.reports.processes.find((one) => one.last_words)?.last_words;
  const last = leaving ?? snapshot.last_exit?.last_words;
  $("own-words").hidden = !last;
  if (last) {
    $("words-when").textContent = leaving ? "now" : `${words.duration(snapshot.at_unix - last.at_unix)} ago`;
    $("words").textContent = last.lines.map((line) => line.replace(/^plimsoll: /, "")).join("\n");
  }
}
