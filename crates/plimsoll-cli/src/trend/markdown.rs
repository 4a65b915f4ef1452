//! An analysis as a page of markdown for people: the word first, then what grows and why, then the rest. Names of files, no paths.

use std::fmt::Write as _;

use super::Analysis;
use crate::snapshot::VerdictView;
use crate::view::{trend, words};

/// Keys of a kind that are shown.
const ROWS: usize = 15;
/// Snapshots that are listed; of more, the first and the last ones.
const LISTED: usize = 20;

/// The page. `subject` is what it is about, `when` the time in words.
pub(crate) fn page(analysis: &Analysis, subject: &str, when: &str) -> String {
    let mut page = format!("# Heap Trend Analysis\n\n**{}** · {} · {when}\n\n", escaped(subject), analysis.overall);
    let growing: Vec<(&str, &VerdictView)> = analysis
        .judged
        .iter()
        .flat_map(|judged| judged.verdicts.iter().map(|verdict| (judged.kind.word(), verdict)))
        .filter(|(_, verdict)| verdict.per_hour.is_some())
        .collect();
    if let Some(said) = super::said_of_left_out(analysis.left_out) {
        write(&mut page, format_args!("{said}.\n\n"));
    }
    if growing.is_empty() {
        page.push_str(match analysis.overall.as_str() {
            "insufficient-data" => "There are too few readings to say whether anything leaks.\n",
            _ => "Nothing grows beyond noise.\n",
        });
    }
    for (kind, verdict) in growing.iter().take(ROWS) {
        let rate = verdict.per_hour.map(|rate| trend::rate(rate, &verdict.unit)).unwrap_or_default();
        write(&mut page, format_args!("- **`{}`** ({kind}) is **{}**: {rate}", ticked(&verdict.key), verdict.state));
        if let Some(left) = trend::time_to_limit(verdict) {
            write(&mut page, format_args!("; the limit is reached in {left}"));
        }
        page.push_str(".\n");
        for reason in &verdict.reasons {
            write(&mut page, format_args!("  - {}\n", escaped(reason)));
        }
    }
    for judged in analysis.judged.iter().filter(|judged| !judged.verdicts.is_empty()) {
        write(&mut page, format_args!("\n## By {}\n\n", judged.kind.word()));
        page.push_str("| verdict | sure | growth | now | | \n|---|--:|--:|--:|---|\n");
        for verdict in judged.verdicts.iter().take(ROWS) {
            let rate = verdict.per_hour.map_or_else(|| "–".to_owned(), |rate| trend::rate(rate, &verdict.unit));
            write(
                &mut page,
                format_args!(
                    "| {} | {:.0} % | {rate} | {} | `{}` |\n",
                    verdict.state,
                    verdict.confidence_ratio * 100.0,
                    trend::value(verdict.now, &verdict.unit),
                    ticked(&verdict.key).replace('|', "\\|")
                ),
            );
        }
        if judged.keys > ROWS {
            write(&mut page, format_args!("\n{} more were judged.\n", judged.keys - ROWS));
        }
    }
    snapshots(analysis, &mut page);
    page
}

fn snapshots(analysis: &Analysis, page: &mut String) {
    let samples = &analysis.samples;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return };
    let span = (last.unix_ns - first.unix_ns) as f64 / 1e9;
    write(
        page,
        format_args!(
            "\n## Snapshots\n\n{} over {}, of {}.\n\n| hours | held | file |\n|--:|--:|---|\n",
            words::plural(samples.len() as u64, "snapshot", "snapshots"),
            words::seconds(span),
            words::plural(analysis.lives as u64, "life", "lives"),
        ),
    );
    let half = LISTED / 2;
    for (at, sample) in samples.iter().enumerate() {
        if samples.len() > LISTED && (half..samples.len() - half).contains(&at) {
            if at == half {
                page.push_str("| … | | |\n");
            }
            continue;
        }
        let hours = (sample.unix_ns - first.unix_ns) as f64 / 3.6e12;
        let name = sample.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        write(page, format_args!("| {hours:.1} | {} | `{}` |\n", words::size(sample.held_bytes), ticked(&name)));
    }
}

fn write(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    page.write_fmt(text).ok();
}

/// Text between backticks: what would end them or the line is replaced.
fn ticked(text: &str) -> String {
    text.chars().map(|c| if c == '`' || c.is_control() { '?' } else { c }).collect()
}

/// Text of a program that cannot become markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '*' | '_' | '`' | '[' | ']' | '\\' | '|' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trend::tests::leaking;

    #[test]
    fn a_page_says_what_leaks_first_and_no_paths() {
        let page = page(&leaking(), "shop", "2026-11-21 09:30");
        assert!(page.starts_with("# Heap Trend Analysis\n\n**shop** · leaking · 2026-11-21 09:30\n"), "{page}");
        assert!(page.contains("**`app.cache → Map`** (owner) is **leaking**: +"), "{page}");
        assert!(page.contains("the limit is reached in") && page.contains("40 snapshots over"), "{page}");
        assert!(!page.contains("/s/"), "{page}");
    }

    #[test]
    fn what_a_program_says_is_no_markup() {
        let mut analysis = leaking();
        analysis.judged[0].verdicts[0].key = "x`</script>\n|".into();
        let page = page(&analysis, "a*b<c", "now");
        assert!(page.contains("a\\*b&lt;c") && page.contains("`x?</script>?\\|`"), "{page}");
        assert!(page_of_nothing().contains("too few readings"));
    }

    fn page_of_nothing() -> String {
        page(&Analysis::default(), "x", "now")
    }
}
