//! Lines into any `io::Write`: a file, a pipe, stderr. Gaps become lines of their own.

use std::io::{self, Write};

use super::Line;
use crate::queue::batch::{Record, Sink, SinkError};

/// Writes lines to `W` and flushes it after each batch.
///
/// A batch that fails in its middle is written again from where it stopped, as far as `W` says how much it took: no line is torn or doubled.
#[derive(Debug)]
pub struct ToWriter<W> {
    to: W,
    /// Of a batch that has failed: its text, and how much of it is out.
    text: Vec<u8>,
    out: usize,
}

impl<W: Write + Send> ToWriter<W> {
    /// Lines go there.
    pub fn new(to: W) -> ToWriter<W> {
        ToWriter { to, text: Vec::new(), out: 0 }
    }

    fn go_on(&mut self) -> io::Result<()> {
        while self.out < self.text.len() {
            match self.to.write(&self.text[self.out..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.out += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.to.flush()
    }
}

impl<W: Write + Send> Sink<Line> for ToWriter<W> {
    fn write(&mut self, records: &[Record<Line>]) -> Result<(), SinkError> {
        let mut text = Vec::new();
        for record in records {
            match record {
                Record::Value(line) => text.extend_from_slice(&line.text),
                Record::Gap(gap) => writeln!(text, "plimsoll: {gap}")?,
            }
        }
        // A batch is tried again whole or in parts: what begins as the one before began goes on where that one stopped.
        let is_out = self.out.min(text.len());
        self.out = if self.text[..is_out] == text[..is_out] { is_out } else { 0 };
        self.text = text;
        self.go_on()?;
        (self.text, self.out) = (Vec::new(), 0);
        Ok(())
    }
}
