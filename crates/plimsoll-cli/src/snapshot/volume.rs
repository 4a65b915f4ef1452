//! Who prints how much, as the faces show it: rates and shares of each stream in the last 30 to 60 seconds, and the templates that make
//! most of its bytes.

use std::collections::BTreeMap;

use plimsoll_store::volume::Measured;
use serde::{Deserialize, Serialize};

/// Templates shown of a stream.
pub(crate) const TEMPLATES_SHOWN: usize = 5;

/// All of a program's streams.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VolumeView {
    /// The time that the figures are about.
    pub span_seconds: f64,
    /// By name; only those that printed.
    pub streams: BTreeMap<String, StreamVolume>,
    /// The rate limit of each stream, in words, when there is one.
    pub limit: Option<String>,
}

/// One stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StreamVolume {
    pub lines_per_second: f64,
    pub bytes_per_second: f64,
    /// Of the program's bytes.
    pub share_ratio: f64,
    /// Lines that are the same as the one before, of all.
    pub repeated_ratio: f64,
    pub lines: u64,
    /// Fewer than `lines`: what is said about templates and repeats is a sample's.
    pub looked_at_lines: u64,
    /// Most bytes first, at most [`TEMPLATES_SHOWN`].
    pub templates: Vec<TemplateView>,
    /// There are more than are shown.
    pub more_templates: bool,
}

/// Lines that differ only in numbers, quoted parts and the like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TemplateView {
    /// Absent for who may not read the program's words.
    pub text: Option<String>,
    pub lines_per_second: f64,
    /// Of the stream's bytes.
    pub share_ratio: f64,
    /// How far `share_ratio` may be off; 0 is exact.
    pub margin_ratio: f64,
}

impl VolumeView {
    /// The view of what the meters of streams measured.
    pub(crate) fn of(streams: &[(&str, Measured); 2], limit: Option<String>) -> VolumeView {
        let span = streams.iter().map(|(_, measured)| measured.span.as_secs_f64()).fold(0.0, f64::max);
        let all: u64 = streams.iter().map(|(_, measured)| measured.bytes).sum();
        let printed = streams.iter().filter(|(_, measured)| measured.bytes > 0);
        let streams = printed.map(|(name, measured)| ((*name).to_owned(), StreamVolume::of(measured, all))).collect();
        VolumeView { span_seconds: span, streams, limit }
    }

    /// Without the program's words.
    pub(crate) fn redact(&mut self) {
        let templates = self.streams.values_mut().flat_map(|stream| &mut stream.templates);
        templates.for_each(|template| template.text = None);
    }

    /// The stream and the template that make most bytes.
    pub(crate) fn most(&self) -> Option<(&str, &StreamVolume, Option<&TemplateView>)> {
        let (name, most) = self.streams.iter().max_by(|a, b| a.1.share_ratio.total_cmp(&b.1.share_ratio))?;
        Some((name, most, most.templates.first()))
    }
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

impl StreamVolume {
    #[allow(clippy::cast_precision_loss)] // figures for people
    fn of(measured: &Measured, all_bytes: u64) -> StreamVolume {
        let seconds = measured.span.as_secs_f64().max(1.0);
        let counted: u64 = measured.templates.iter().map(|template| template.bytes - template.over_bytes).sum();
        let templates = measured.templates.iter().take(TEMPLATES_SHOWN).map(|template| {
            // Of what is surely there; what the sketch may have counted too much is in the margin.
            let whole = counted.max(template.bytes);
            let share_ratio = ratio(template.bytes, whole);
            TemplateView {
                text: Some(shown(&template.template)),
                lines_per_second: template.lines as f64 / seconds,
                share_ratio,
                margin_ratio: (measured.margin(share_ratio) + ratio(template.over_bytes, whole)).min(1.0),
            }
        });
        StreamVolume {
            lines_per_second: measured.lines as f64 / seconds,
            bytes_per_second: measured.bytes as f64 / seconds,
            share_ratio: ratio(measured.bytes, all_bytes),
            repeated_ratio: ratio(measured.repeated_lines, measured.lines),
            lines: measured.lines,
            looked_at_lines: measured.looked_at.min(measured.lines),
            templates: templates.collect(),
            more_templates: measured.templates.len() > TEMPLATES_SHOWN,
        }
    }
}

/// A template as text: what is not printable is shown as a dot.
pub(crate) fn shown(template: &[u8]) -> String {
    let text = String::from_utf8_lossy(template);
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plimsoll_store::volume::Meter;

    use super::*;

    fn measured(text: &str) -> Measured {
        let mut meter = Meter::new(Duration::ZERO);
        meter.see(text.as_bytes(), text.matches('\n').count() as u64, Duration::from_secs(1));
        meter.measured(Duration::from_secs(10))
    }

    #[test]
    fn shares_are_of_the_program_and_of_the_stream() {
        let flood = "accept 1: EMFILE\n".repeat(30);
        let view = VolumeView::of(&[("stdout", measured("hello\x07\n")), ("stderr", measured(&flood))], None);
        let (name, stream, template) = view.most().unwrap();
        assert_eq!((name, stream.lines), ("stderr", 30));
        assert!((stream.share_ratio - 510.0 / 517.0).abs() < 1e-9, "{stream:?}");
        assert!((stream.repeated_ratio - 29.0 / 30.0).abs() < 1e-9 && (stream.lines_per_second - 3.0).abs() < 1e-9);
        let template = template.unwrap();
        assert_eq!(template.text.as_deref(), Some("accept #: EMFILE"));
        assert!((template.share_ratio, template.margin_ratio) == (1.0, 0.0), "{template:?}");
        assert_eq!(view.streams["stdout"].templates[0].text.as_deref(), Some("hello·"));
        let mut redacted = view.clone();
        redacted.redact();
        assert!(!serde_json::to_string(&redacted).unwrap().contains("EMFILE"));
        assert_eq!(
            VolumeView::of(&[("stdout", Measured::default()), ("stderr", Measured::default())], None).most(),
            None
        );
    }
}
