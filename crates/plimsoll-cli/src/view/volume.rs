//! Who prints how much, in lines: one for `top`, a table for `status`.

use plimsoll::units;

use super::text::{Line, Tone};
use super::words;
use crate::snapshot::volume::{StreamVolume, TemplateView, VolumeView};

/// A template that makes more than this of a stream's bytes …
const FLOOD_SHARE: f64 = 0.5;
/// … and comes more often than this in a second, is pointed at.
const FLOOD_LINES_PER_SECOND: f64 = 100.0;

/// The stream and the template that print most, in one line; `None` while nothing prints.
pub(crate) fn most(volume: &VolumeView) -> Option<Line> {
    let (name, stream, template) = volume.most()?;
    let mut line = Line::new().plain(format!("{name} {}", percent(stream.share_ratio, 0.0)));
    if let Some(template) = template {
        line = line.add(Tone::Dim, " · ").join(share(stream, template)).add(Tone::Dim, " of it  ").join(text(template));
    }
    Some(line)
}

/// Each stream, and its templates below it; all but the first line have no label.
pub(crate) fn table(volume: &VolumeView) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut streams: Vec<_> = volume.streams.iter().collect();
    streams.sort_by(|a, b| b.1.share_ratio.total_cmp(&a.1.share_ratio));
    for (name, stream) in streams {
        let rate = units::rate(stream.bytes_per_second).to_string();
        let mut line = Line::new()
            .plain(format!("{name} {}", percent(stream.share_ratio, 0.0)))
            .add(Tone::Dim, " · ")
            .plain(format!("{} lines/s", figure(stream.lines_per_second)))
            .add(Tone::Dim, " · ")
            .plain(rate.trim_start_matches('+'));
        if stream.repeated_ratio >= 0.01 {
            line = line.add(Tone::Dim, format!(" · {} repeat the line before", percent(stream.repeated_ratio, 0.0)));
        }
        let how = match stream.looked_at_lines < stream.lines {
            true => {
                format!("a sample of {} of {} lines", words::count(stream.looked_at_lines), words::count(stream.lines))
            }
            false => "every line".to_owned(),
        };
        lines.push(line.add(Tone::Dim, format!(" · last {}, {how}", words::seconds(volume.span_seconds.round()))));
        for template in &stream.templates {
            lines.push(Line::new().plain("  ").join(share(stream, template)).pad_to(14).join(text(template)));
        }
        if stream.more_templates {
            lines.push(Line::new().pad_to(14).add(Tone::Dim, "…"));
        }
    }
    lines.extend(
        volume.limit.as_ref().map(|limit| Line::new().add(Tone::Dim, format!("each stream limited to {limit}"))),
    );
    lines
}

fn share(stream: &StreamVolume, template: &TemplateView) -> Line {
    let flood = template.share_ratio >= FLOOD_SHARE && template.lines_per_second >= FLOOD_LINES_PER_SECOND;
    let tone = if flood && stream.share_ratio >= FLOOD_SHARE { Tone::Warn } else { Tone::Plain };
    Line::new().add(tone, percent(template.share_ratio, template.margin_ratio))
}

fn text(template: &TemplateView) -> Line {
    match template.text.as_deref() {
        Some("") => Line::new().add(Tone::Dim, "(empty lines)"),
        Some(text) => Line::new().plain(text),
        None => Line::new().add(Tone::Dim, "(words are not shown here)"),
    }
}

/// `96 %`, `63 ± 2 %`, `< 1 %`.
pub(crate) fn percent(ratio: f64, margin: f64) -> String {
    let (percent, margin) = (ratio * 100.0, margin * 100.0);
    if margin >= 0.5 {
        format!("{percent:.0} ± {:.0} %", margin.max(1.0))
    } else if percent > 0.0 && percent < 1.0 {
        "< 1 %".to_owned()
    } else if percent > 99.0 && percent < 99.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// A rate for people: `0.2`, `7`, `3,747`.
pub(crate) fn figure(rate: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // rates are small and not negative
    if rate < 10.0 && rate.fract() >= 0.05 { format!("{rate:.1}") } else { words::count(rate.round().max(0.0) as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;
    use crate::view::text::write_lines;

    #[test]
    fn a_flood_is_named_with_its_share_and_how_sure_that_is() {
        let volume = sample::leaking().logs.volume;
        let one = write_lines(&[most(&volume).unwrap()], false);
        assert_eq!(one, "stderr 98 % · 96 ± 1 % of it  ERROR accept: EMFILE, fd #\n");
        let all = write_lines(&table(&volume), false);
        let expected = "\
stderr 98 % · 3,100 lines/s · 620 KiB/s · 95 % repeat the line before · last 45 s, a sample of 90,000 of 139,500 lines
  96 ± 1 %    ERROR accept: EMFILE, fd #
  4 %         WARN retry # in # ms
stdout 2 % · 4.2 lines/s · 12 KiB/s · last 45 s, every line
  100 %       GET #
each stream limited to 1.0 MiB/s
";
        assert_eq!(all, expected, "\n{all}");
        assert!(most(&VolumeView::default()).is_none() && table(&VolumeView::default()).is_empty());
    }

    #[test]
    fn figures_are_as_exact_as_they_can_be() {
        for (ratio, margin, said) in [
            (0.96, 0.0, "96 %"),
            (0.63, 0.021, "63 ± 2 %"),
            (0.004, 0.0, "< 1 %"),
            (0.0, 0.0, "0 %"),
            (1.0, 0.0, "100 %"),
            (0.9971, 0.0, "99.7 %"),
        ] {
            assert_eq!(percent(ratio, margin), said);
        }
        assert_eq!((figure(0.23), figure(7.0), figure(3746.7)), ("0.2".into(), "7".into(), "3,747".into()));
    }
}
