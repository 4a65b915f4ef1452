//! The frames of one profile while it is read: each is kept once, and so is each text. At most [`crate::parse::FRAMES_MAX`] frames and
//! [`TEXT_BYTES_MAX`] (64 MiB) of texts; a text that has no room is `(left out)`, which is counted and said.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Frame, MAPPED_MAX, Mapped, Profile};
use crate::parse::{FRAMES_MAX, Warnings};

/// Bytes of all names and files of one profile, with what keeping one costs beside it.
pub const TEXT_BYTES_MAX: usize = 64 << 20;
/// What a text takes beside its bytes: counters, and its place in a table.
const TEXT_COST: usize = 48;
/// Stands for a text that had no room.
const LEFT_OUT: &str = "(left out)";
/// The longest name of a file that a system takes; what is longer is cut.
const NAME_BYTES_MAX: usize = 255;

/// The beginning of a text, at most so many bytes of it.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// Texts, each kept once.
#[derive(Debug)]
pub(crate) struct Texts {
    known: HashSet<Arc<str>>,
    room: usize,
    /// How often a text had no room.
    pub(crate) left_out: u64,
}

impl Default for Texts {
    fn default() -> Texts {
        Texts { known: HashSet::new(), room: TEXT_BYTES_MAX, left_out: 0 }
    }
}

impl Texts {
    /// This text, shared with all that are equal.
    pub(crate) fn keep(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        let cost = text.len() + TEXT_COST;
        let Some(room) = self.room.checked_sub(cost).filter(|_| text != LEFT_OUT) else {
            self.left_out += u64::from(text != LEFT_OUT);
            let beyond = self.known.get(LEFT_OUT).cloned().unwrap_or_else(|| LEFT_OUT.into());
            self.known.insert(Arc::clone(&beyond));
            return beyond;
        };
        self.room = room;
        let kept: Arc<str> = text.into();
        self.known.insert(Arc::clone(&kept));
        kept
    }
}

/// Frames by what they are, so that each is kept once.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    known: HashMap<Frame, u32>,
    pub(crate) texts: Texts,
    mapped: HashSet<String>,
}

impl Frames {
    /// The index of this frame, a new one where it is not known; `None` when there are too many.
    pub(crate) fn index(&mut self, frame: Frame, all: &mut Vec<Frame>) -> Option<u32> {
        if let Some(at) = self.known.get(&frame) {
            return Some(*at);
        }
        if all.len() >= FRAMES_MAX {
            return None;
        }
        let at = u32::try_from(all.len()).ok()?;
        all.push(frame.clone());
        self.known.insert(frame, at);
        Some(at)
    }

    /// A frame that has a name only.
    pub(crate) fn named(&mut self, name: &str) -> Frame {
        Frame { name: self.texts.keep(name), ..Frame::default() }
    }

    /// An address that nothing names: `name+0xoffset` of the mapped file, the same wherever it is loaded.
    pub(crate) fn address(&mut self, file: &str, offset: u64) -> Frame {
        let name = file.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("?");
        let name = cut(name, NAME_BYTES_MAX);
        let name = self.texts.keep(&format!("{name}+{offset:#x}"));
        Frame { name, file: self.texts.keep(file), line: 0, offset }
    }

    /// Notes that a frame without a symbol is in this file, at most [`MAPPED_MAX`] of them.
    pub(crate) fn maps(&mut self, mapped: Mapped, profile: &mut Profile) {
        if profile.mapped.len() < MAPPED_MAX && self.mapped.insert(mapped.file.clone()) {
            profile.mapped.push(mapped);
        }
    }

    /// Says what had no room.
    pub(crate) fn warn(&self, warnings: &mut Warnings) {
        if self.texts.left_out > 0 {
            warnings.add(0, "more than 64 MiB of names: functions beyond are (left out)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_what_has_no_room_is_counted() {
        let mut texts = Texts { room: 2 * (TEXT_COST + 3), ..Texts::default() };
        let (one, same) = (texts.keep("one"), texts.keep("one"));
        assert!(Arc::ptr_eq(&one, &same));
        assert_eq!((&*texts.keep("two"), texts.left_out), ("two", 0));
        let (beyond, more) = (texts.keep("three"), texts.keep("four"));
        assert_eq!((&*beyond, texts.left_out), (LEFT_OUT, 2));
        assert!(Arc::ptr_eq(&beyond, &more) && Arc::ptr_eq(&one, &texts.keep("one")), "what is known has its place");
        let mut warnings = Warnings::default();
        Frames { texts, ..Frames::default() }.warn(&mut warnings);
        assert_eq!(warnings.into_vec().len(), 1);
    }

    #[test]
    fn addresses_of_one_file_share_its_path_and_its_name_is_bounded() {
        let mut frames = Frames::default();
        let path = format!("/opt/{}é", "x".repeat(254));
        let (one, two) = (frames.address(&path, 16), frames.address(&path, 32));
        assert!(Arc::ptr_eq(&one.file, &two.file));
        assert_eq!(&*one.name, format!("{}+0x10", "x".repeat(254)));
    }
}
