//! What a program said of itself, in words: readings, accounts, queues, reclaim, sd_notify and last words.
//!
//! One line each of the main process's last report; a list ends with what is not named ([`ACCOUNTS`] accounts, [`QUEUES`] queues in
//! `top`, [`LOSERS`] producers). A report that is older than [`OLD_SECONDS`] says so.

use super::text::{Line, Tone};
use super::words::{count, plural, seconds, size};
use crate::snapshot::Snapshot;
use crate::snapshot::report::{LastWordsView, ProducerView, QueueView, ReclaimView, ReportView};

/// Accounts named in one line.
const ACCOUNTS: usize = 5;
/// Queues shown where there is little room.
const QUEUES: usize = 3;
/// Producers named in the line of their queue: those that lost most.
const LOSERS: usize = 2;
/// From this age on a report is not of now: five were missed.
const OLD_SECONDS: f64 = 5.0;

/// A label and what stands behind it.
type Row = (&'static str, Line);

/// What `status` and `top` both show.
pub(super) fn facts(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(report) = snapshot.reports.processes.first() {
        rows.push(("reported", readings(report, snapshot.reports.processes.len())));
        if !report.accounts.is_empty() {
            rows.push(("accounts", accounts(report)));
        }
        rows.extend(report.queues.iter().take(QUEUES).map(|one| ("queue", queue(one))));
        let others = report.queues.len().saturating_sub(QUEUES);
        if others > 0 {
            rows.push(("queue", Line::new().add(Tone::Dim, format!("{} more", count(others as u64)))));
        }
        rows.extend(
            report.reclaim.as_ref().filter(|one| one.ordered_bytes_total > 0).map(|one| ("reclaim", reclaim(one))),
        );
    }
    rows.extend(notify(snapshot).map(|line| ("says", line)));
    rows
}

/// What `status` adds: the other queues, producers, stores, gauges, and what was not heard.
pub(super) fn details(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for report in &snapshot.reports.processes {
        rows.extend(report.queues.iter().skip(QUEUES).map(|one| ("queue", queue(one))));
        for queue in &report.queues {
            rows.extend(queue.producers.iter().map(|one| ("producer", producer(queue, one))));
        }
        for store in report.reclaim.iter().flat_map(|reclaim| &reclaim.stores) {
            let mut line = Line::new().plain(&store.name).plain(format!(" {}", size(store.held_bytes)));
            line = line.add(
                Tone::Dim,
                format!(" · gave {} of {} asked", size(store.claimed_bytes_total), size(store.asked_bytes_total)),
            );
            if let Some(late) = store.late_seconds {
                line = line.add(Tone::Dim, " · ").add(Tone::Alarm, format!("late for {}", seconds(late)));
            }
            rows.push(("store", line));
        }
        for gauge in &report.gauges {
            rows.push(("gauge", Line::new().plain(&gauge.name).add(Tone::Dim, format!("  {}", gauge.value))));
        }
    }
    rows.extend(unheard(snapshot).map(|line| ("reports", line)));
    rows
}

/// Who held the memory of a program that leaves now, or that left: the line of its last words that says so.
pub(super) fn holders(snapshot: &Snapshot) -> Option<Line> {
    let line = last_words(snapshot)?.lines.iter().find(|line| is_holders(line))?;
    Some(Line::new().plain(bare(line)))
}

/// The other lines of its last words.
pub(super) fn words(snapshot: &Snapshot) -> Vec<Line> {
    let lines = last_words(snapshot).map(|words| words.lines.as_slice()).unwrap_or_default();
    lines.iter().filter(|line| !is_holders(line)).map(|line| Line::new().add(Tone::Dim, bare(line))).collect()
}

fn is_holders(line: &str) -> bool {
    line.starts_with("plimsoll: holders:")
}

/// The words of a program that leaves now, else of one that left.
fn last_words(snapshot: &Snapshot) -> Option<&LastWordsView> {
    let now = snapshot.reports.processes.iter().find_map(|report| report.last_words.as_ref());
    now.or_else(|| snapshot.last_exit.as_ref()?.last_words.as_ref())
}

fn bare(line: &str) -> &str {
    line.strip_prefix("plimsoll: ").unwrap_or(line)
}

fn readings(report: &ReportView, processes: usize) -> Line {
    let mut line = Line::new();
    if report.leaving {
        line = line.add(Tone::Critical, "leaving for memory").plain("  ");
    } else if report.soft {
        line = line.add(Tone::Warn, "soft stage").plain("  ");
    }
    for (word, bytes) in
        [("protected", report.protected_bytes), ("live", report.live_bytes), ("accounted", report.accounted_bytes)]
    {
        if let Some(bytes) = bytes {
            line = line.add(Tone::Dim, format!("{word} ")).plain(size(bytes)).plain("  ");
        }
    }
    for (word, bytes) in [("retained", report.retained_bytes), ("unaccounted", report.unaccounted_bytes)] {
        if let Some(bytes) = bytes {
            let sign = if bytes < 0 { "−" } else { "" };
            line = line.add(Tone::Dim, format!("{word} {sign}{}  ", size(bytes.unsigned_abs())));
        }
    }
    if let Some(bytes) = report.threshold_bytes {
        line = line.add(Tone::Dim, format!("leaves at {}  ", size(bytes)));
    }
    if report.age_seconds >= OLD_SECONDS {
        line = line.add(Tone::Warn, format!("{} old  ", seconds(report.age_seconds)));
    }
    match processes {
        0 | 1 => line,
        more => line.add(
            Tone::Dim,
            format!("pid {}, {}", report.pid, plural(more as u64 - 1, "other reports", "others report")),
        ),
    }
}

fn accounts(report: &ReportView) -> Line {
    let mut line = Line::new();
    for account in report.accounts.iter().take(ACCOUNTS) {
        line = line.add(Tone::Dim, format!("{} ", account.name)).plain(size(account.held_bytes));
        if account.refused_total > 0 {
            line = line.add(Tone::Warn, format!(" ({} refused)", count(account.refused_total)));
        }
        line = line.plain("  ");
    }
    let more = report.accounts_count.saturating_sub(report.accounts.len().min(ACCOUNTS) as u64);
    if more == 0 {
        return line;
    }
    let beyond: u64 = report.accounts.iter().skip(ACCOUNTS).map(|account| account.held_bytes).sum();
    line.add(Tone::Dim, format!("{} more {}", count(more), size(beyond + report.unnamed_bytes())))
}

/// `ingest 1,204 of 10,000 · 3.2 MiB of 64.0 MiB · oldest 120 ms · 4,211 lost: web/stderr 4,200, …`.
fn queue(queue: &QueueView) -> Line {
    let of = |max: Option<String>| max.map(|max| format!(" of {max}")).unwrap_or_default();
    let mut line = Line::new().add(Tone::Dim, format!("{} ", queue.name)).plain(count(queue.items));
    line = line.add(Tone::Dim, of(queue.max_items.map(count))).add(Tone::Dim, " · ").plain(size(queue.bytes));
    line = line.add(Tone::Dim, of(queue.max_bytes.map(size)));
    if let Some(age) = queue.oldest_seconds {
        line = line.add(Tone::Dim, " · oldest ").add(if age >= 1.0 { Tone::Warn } else { Tone::Plain }, seconds(age));
    }
    if queue.closed {
        line = line.add(Tone::Dim, " · closed");
    }
    let lost: u64 = queue.producers.iter().map(ProducerView::lost_items).sum();
    if lost == 0 {
        return line.add(Tone::Dim, " · none lost");
    }
    line = line.add(Tone::Dim, " · ").add(Tone::Alarm, format!("{} lost", count(lost)));
    let losers = queue.producers.iter().filter(|producer| producer.lost_items() > 0).take(LOSERS);
    let losers: Vec<_> = losers.map(|producer| format!("{} {}", producer.name, count(producer.lost_items()))).collect();
    line.add(Tone::Dim, format!(": {}", losers.join(", ")))
}

fn producer(queue: &QueueView, producer: &ProducerView) -> Line {
    let line = Line::new().add(Tone::Dim, format!("{} · ", queue.name)).plain(&producer.name);
    let accepted = (count(producer.accepted_items_total), size(producer.accepted_bytes_total));
    let mut line = line.add(Tone::Dim, format!(" · {} accepted, {}", accepted.0, accepted.1));
    for (what, reasons) in [("dropped", &producer.dropped_items_total), ("refused", &producer.refused_items_total)] {
        for (reason, items) in reasons {
            line = line.add(Tone::Dim, " · ").add(Tone::Alarm, format!("{} {what}", count(*items)));
            line = line.add(Tone::Dim, format!(" ({reason})"));
        }
    }
    line
}

fn reclaim(reclaim: &ReclaimView) -> Line {
    let mut line = Line::new();
    if reclaim.stuck {
        line = line.add(Tone::Critical, "stuck").plain("  ");
    }
    line = line.plain(format!("{} given", size(reclaim.claimed_bytes_total)));
    line = line.add(Tone::Dim, format!(" of {} ordered", size(reclaim.ordered_bytes_total)));
    if reclaim.in_flight_bytes > 0 {
        line = line.add(Tone::Dim, " · ").plain(format!("{} in flight", size(reclaim.in_flight_bytes)));
    }
    let late = reclaim.stores.iter().filter(|store| store.late_seconds.is_some());
    let late: Vec<_> = late.map(|store| store.name.as_str()).collect();
    if late.is_empty() {
        line
    } else {
        line.add(Tone::Dim, " · ").add(Tone::Alarm, format!("late: {}", late.join(", ")))
    }
}

fn notify(snapshot: &Snapshot) -> Option<Line> {
    let notify = snapshot.reports.notify.as_ref()?;
    let line = match (notify.stopping, notify.ready) {
        (true, _) => Line::new().add(Tone::Warn, "stopping"),
        (false, true) => Line::new().add(Tone::Good, "ready"),
        (false, false) => Line::new().add(Tone::Note, "not ready yet"),
    };
    Some(match &notify.status {
        Some(status) => line.add(Tone::Dim, " · ").plain(status),
        None => line,
    })
}

/// What came and was not taken; nothing when all of it was.
fn unheard(snapshot: &Snapshot) -> Option<Line> {
    let refused: Vec<_> = snapshot.reports.refused_total.iter().filter(|(_, n)| **n > 0).collect();
    if refused.is_empty() {
        return None;
    }
    let shown: Vec<_> = refused.into_iter().map(|(reason, n)| format!("{} {reason}", count(*n))).collect();
    let taken = plural(snapshot.reports.received_total, "datagram", "datagrams");
    Some(Line::new().plain(taken).add(Tone::Dim, ", not taken: ").add(Tone::Warn, shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;
    use crate::view::text::write_lines;

    fn shown(rows: Vec<Row>) -> String {
        let lines: Vec<_> =
            rows.into_iter().map(|(label, line)| Line::new().plain(label).pad_to(10).join(line)).collect();
        write_lines(&lines, false).lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn a_report_in_a_few_lines() {
        let expected = "\
reported  protected 258.5 MiB  live 182.0 MiB  accounted 171.0 MiB  retained 76.5 MiB  unaccounted 11.0 MiB  leaves at 300.0 MiB
accounts  packets 120.0 MiB  index 40.0 MiB (3 refused)  9 more 11.0 MiB
queue     ingest 1,204 of 10,000 · 3.2 MiB of 64.0 MiB · oldest 1.2 s · 4,215 lost: web/stderr 4,211, main 4
reclaim   late: packets
says      ready · serving 3 clients
";
        let snapshot = sample::reporting();
        let text = shown(facts(&snapshot));
        assert_eq!(text.replace("20.0 MiB given of 32.0 MiB ordered · 4.0 MiB in flight · ", ""), expected, "\n{text}");
        let text = shown(details(&snapshot));
        for line in [
            "producer  ingest · web/stderr · 70,000 accepted, 9.0 MiB · 4,200 dropped (full) · 11 refused (closed)\n",
            "store     packets 120.0 MiB · gave 20.0 MiB of 32.0 MiB asked · late for 2.5 s\n",
            "gauge     chat.clients_count  17\n",
            "reports   552 datagrams, not taken: 2 foreign\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn what_is_old_negative_or_leaving_is_said() {
        let mut snapshot = sample::reporting();
        let report = &mut snapshot.reports.processes[0];
        (report.age_seconds, report.retained_bytes, report.leaving) = (42.0, Some(-(1 << 20)), true);
        report.last_words =
            Some(LastWordsView { lines: vec!["plimsoll: holders: a 1.0 MiB".into()], ..Default::default() });
        let text = shown(facts(&snapshot));
        for words in ["leaving for memory", "retained −1.0 MiB", "42 s old"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let holders = |snapshot: &Snapshot| shown(holders(snapshot).map(|line| ("words", line)).into_iter().collect());
        assert_eq!(holders(&snapshot), "words     holders: a 1.0 MiB\n", "of the one that leaves now");
        let left = sample::reporting();
        assert!(holders(&left).starts_with("words     holders: packets 120.0 MiB"), "of the one that left");
        assert_eq!(words(&left).len(), 2);
        assert!(shown(facts(&sample::leaking())).is_empty(), "a program that says nothing");
    }
}
