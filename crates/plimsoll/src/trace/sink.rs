//! Lines into any `io::Write`: a file, a pipe, stderr. Gaps become lines of their own.
//!
//! Beside the batch in hand it keeps, after a failure, the lines of it that are out already: at most what one batch weighs.

use std::io::{self, Write};

use super::Line;
use crate::queue::batch::{POISON_STRIKES, Record, Sink, SinkError};

/// Writes lines to `W` and flushes it after each batch.
///
/// A batch that fails is asked for again, whole or in parts: what is out is not written again, and a line that was begun is finished first, as
/// far as `W` says how much it took. So no line is torn or doubled; but where `W` takes a newline and not the rest of a line, that ends it.
#[derive(Debug)]
pub struct ToWriter<W> {
    to: W,
    /// What is being written, where each line of it ends, and how much of it is out.
    text: Vec<u8>,
    ends: Vec<usize>,
    out: usize,
    /// Lines that are out while their batch failed, so that they are asked for again; oldest first.
    sent: Vec<Sent>,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Sent {
    line: Box<[u8]>,
    /// How often others went well that come after it: more than [`POISON_STRIKES`], and nobody asks for it again.
    passed: u32,
}

/// The last line that was written, and how much of it is out.
#[derive(Debug)]
struct Begun {
    line: Box<[u8]>,
    out: usize,
}

impl<W: Write + Send> ToWriter<W> {
    /// Lines go there.
    pub fn new(to: W) -> ToWriter<W> {
        let (text, ends, sent) = (Vec::new(), Vec::new(), Vec::new());
        ToWriter { to, text, ends, out: 0, sent, begun: None }
    }

    /// After a failure: which lines are out.
    fn take_stock(&mut self) {
        let mut start = 0;
        for end in std::mem::take(&mut self.ends) {
            if end > self.out {
                if self.out > start {
                    self.begun = Some(Begun { line: self.text[start..end].into(), out: self.out - start });
                }
                break;
            }
            self.sent.push(Sent { line: self.text[start..end].into(), passed: 0 });
            start = end;
        }
        (self.text, self.out) = (Vec::new(), 0);
    }

    /// This line of the text is written on from where it stopped, if it was begun. If another one was, that is brought to its end first.
    fn goes_on_with(&mut self, line: std::ops::Range<usize>) -> io::Result<()> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        if *begun.line == self.text[line.clone()] && line.start == 0 {
            self.out = begun.out;
            self.begun = None;
            return Ok(());
        }
        self.end_begun()
    }

    /// Brings the line that was begun to its end.
    fn end_begun(&mut self) -> io::Result<()> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let finished = write_on(&mut self.to, &begun.line, &mut begun.out);
        let newline = b"\n";
        if finished.is_err()
            && (begun.line[begun.out..] == *newline || write_on(&mut self.to, newline, &mut 0).is_err())
        {
            return finished;
        }
        // One that was ended by force is written whole when it is asked for again.
        let begun = self.begun.take().filter(|_| finished.is_ok());
        self.sent.extend(begun.map(|begun| Sent { line: begun.line, passed: 0 }));
        Ok(())
    }

    /// These lines of [`ToWriter::sent`] (in order) are acknowledged, and what lies before them was passed over.
    fn forget(&mut self, found: &[usize]) {
        let passed = found.last().copied().unwrap_or(self.sent.len());
        let mut at = 0;
        self.sent.retain_mut(|sent| {
            sent.passed += u32::from(at < passed);
            at += 1;
            found.binary_search(&(at - 1)).is_err() && sent.passed <= POISON_STRIKES
        });
        if self.sent.is_empty() {
            self.sent = Vec::new();
        }
    }
}

impl<W: Write + Send> Sink<Line> for ToWriter<W> {
    fn write(&mut self, records: &[Record<Line>]) -> Result<(), SinkError> {
        self.take_stock();
        let mut found = Vec::new();
        for record in records {
            let start = self.text.len();
            match record {
                Record::Value(line) => self.text.extend_from_slice(&line.text),
                Record::Gap(gap) => writeln!(self.text, "plimsoll: {gap}")?,
            }
            // In the order in which they were written, so that each is looked at once.
            let from = found.last().map_or(0, |last| last + 1);
            if let Some(ahead) = self.sent[from..].iter().position(|sent| *sent.line == self.text[start..]) {
                found.push(from + ahead);
                self.text.truncate(start);
                continue;
            }
            self.goes_on_with(start..self.text.len())?;
            self.ends.push(self.text.len());
        }
        if self.ends.is_empty() {
            // All of it is out. Whether the writer is well again shows in what is not.
            self.end_begun()?;
        }
        write_on(&mut self.to, &self.text, &mut self.out)?;
        self.to.flush()?;
        (self.text, self.out) = (Vec::new(), 0);
        self.ends.clear();
        self.forget(&found);
        Ok(())
    }
}

/// Writes what of `text` is not `out`.
fn write_on(to: &mut impl Write, text: &[u8], out: &mut usize) -> io::Result<()> {
    while *out < text.len() {
        match to.write(&text[*out..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *out += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
