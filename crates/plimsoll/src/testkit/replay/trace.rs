//! A trace: memory over time from anywhere, one `time,bytes` a line.

use crate::gauge::Protected;
use crate::governor::Reading;
use crate::governor::log::LogError;
use crate::units::{parse_duration, parse_size};

/// Reads it; each line is a confirmed reading.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Reading>, LogError> {
    let mut readings: Vec<Reading> = Vec::new();
    let (mut offset, mut headings) = (0, false);
    for (line, content) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
        let fault = |what: String| LogError { offset, line, what };
        let shown =
            std::str::from_utf8(content).map_err(|_| fault("neither a decision log nor a trace: not text".into()))?;
        let shown = shown.trim();
        if !shown.is_empty() && !shown.starts_with('#') {
            match reading(shown) {
                Ok(reading) => {
                    let before = readings.last().map(|last| last.at).filter(|at| *at > reading.at);
                    if let Some(before) = before {
                        let (now, before) = (reading.at.as_secs_f64(), before.as_secs_f64());
                        return Err(fault(format!("{now} s after {before} s: time goes back")));
                    }
                    readings.push(reading);
                }
                // One line of headings, before anything else.
                Err(_) if readings.is_empty() && !headings && is_heading(shown) => headings = true,
                Err(what) => return Err(fault(what)),
            }
        }
        offset += content.len();
    }
    Ok(readings)
}

/// Words, and no number among them.
fn is_heading(line: &str) -> bool {
    line.starts_with(|c: char| c.is_alphabetic() || c == '"') && !line.contains(char::is_control)
}

fn reading(line: &str) -> Result<Reading, String> {
    let between = |c: char| matches!(c, ',' | ';') || c.is_whitespace();
    let mut fields = line.split(between).filter(|field| !field.is_empty());
    let (Some(time), Some(bytes)) = (fields.next(), fields.next()) else {
        return Err(format!("\"{}\": expected time,bytes such as 12.5,104857600", shown(line)));
    };
    let bare = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let with = |text: &str, unit: &str| if bare(text) { format!("{text}{unit}") } else { text.to_owned() };
    let at = parse_duration(&with(time, "s")).map_err(|error| format!("time: {error}"))?;
    let program_bytes = parse_size(&with(bytes, "B")).map_err(|error| format!("bytes: {error}"))?;
    let confirmed = Some(Ok(Protected { program_bytes, ..Protected::default() }));
    Ok(Reading { at, fast_bytes: Some(program_bytes), confirmed, ..Reading::default() })
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect::<String>().escape_debug().to_string()
}
