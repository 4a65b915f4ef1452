//! V8's sampling heap profile (`.heapprofile`, JSON): a tree of call frames with the live bytes of each, sampled and scaled up.
//!
//! The file does not say its sampling interval. A sample of size s stands for s / (1 − e^(−s/R)), which is never less than R: the
//! smallest sample is taken for R. Read without recursion; at most [`BYTES`] (256 MiB).

use std::io::Read;

use super::{ENTRIES_MAX, FRAMES_MAX, ReadError, STACK_MAX, Warning, Warnings};
use crate::digest::Kind;
use crate::profile::{Entry, Frame, Frames, Profile, Sampling};

use json::{Json, Token};

mod json;

/// Bytes of a profile; more is an error.
pub const BYTES: u64 = 256 << 20;

/// Where in the file the reader is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    Node(usize),
    Children(usize),
    CallFrame(usize),
    Samples,
    Sample,
    Elsewhere,
}

/// One call in the tree.
#[derive(Default)]
struct Node {
    parent: Option<usize>,
    function: String,
    url: String,
    line: u32,
    bytes: f64,
    id: u64,
    samples: u64,
}

/// Reads a profile.
///
/// # Errors
/// JSON that is torn or none, no `head`, more nodes than [`ENTRIES_MAX`], or the reader's own.
pub fn read(mut input: impl Read) -> Result<(Profile, Vec<Warning>), ReadError> {
    let mut bytes = Vec::new();
    (&mut input).take(BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES {
        return Err(ReadError::TooMany { most: BYTES, what: "bytes" });
    }
    let mut json = Json::new(&bytes);
    let mut nodes: Vec<Node> = Vec::new();
    let mut by_id = std::collections::HashMap::new();
    let mut counted: Vec<u64> = Vec::new();
    let mut smallest = f64::INFINITY;
    let mut places: Vec<Place> = Vec::new();
    let mut key = String::new();
    if json.next()? != Some(Token::Begin(b'{')) {
        return Err(ReadError::damage(0, "not a JSON object"));
    }
    places.push(Place::Top);
    while let Some(place) = places.last().copied() {
        let Some(token) = json.next()? else { return Err(ReadError::damage(json.offset(), "the file ends too early")) };
        match token {
            Token::Key(name) => key = name,
            Token::End => {
                places.pop();
            }
            Token::Begin(bracket) => places.push(match (place, key.as_str(), bracket) {
                (Place::Top, "head", b'{') if nodes.is_empty() => {
                    nodes.push(Node::default());
                    Place::Node(0)
                }
                (Place::Top, "samples", b'[') => Place::Samples,
                (Place::Samples, _, b'{') => Place::Sample,
                (Place::Node(at), "callFrame", b'{') => Place::CallFrame(at),
                (Place::Node(at), "children", b'[') => Place::Children(at),
                (Place::Children(parent), _, b'{') => {
                    if nodes.len() >= ENTRIES_MAX {
                        return Err(ReadError::TooMany { most: ENTRIES_MAX as u64, what: "calls" });
                    }
                    nodes.push(Node { parent: Some(parent), ..Node::default() });
                    Place::Node(nodes.len() - 1)
                }
                _ => Place::Elsewhere,
            }),
            Token::Text(text) => match (place, key.as_str()) {
                (Place::CallFrame(at), "functionName") => nodes[at].function = text,
                (Place::CallFrame(at), "url") => nodes[at].url = text,
                _ => {}
            },
            Token::Number(number) => match (place, key.as_str()) {
                (Place::Node(at), "selfSize") => nodes[at].bytes = number.max(0.0),
                (Place::Node(at), "id") => {
                    nodes[at].id = number as u64;
                    by_id.insert(number as u64, at);
                }
                // From 0 in the file, from 1 for people; -1: not known.
                (Place::CallFrame(at), "lineNumber") if number >= 0.0 => {
                    nodes[at].line = (number as u32).saturating_add(1);
                }
                (Place::Sample, "size") if number > 0.0 => smallest = smallest.min(number),
                (Place::Sample, "nodeId") if counted.len() < FRAMES_MAX => counted.push(number as u64),
                _ => {}
            },
            Token::Word => {}
        }
    }
    if nodes.is_empty() {
        return Err(ReadError::damage(json.offset(), "no head: not a sampling heap profile"));
    }
    for id in counted {
        if let Some(at) = by_id.get(&id) {
            nodes[*at].samples += 1;
        }
    }
    profile(&nodes, smallest)
}

fn profile(nodes: &[Node], smallest: f64) -> Result<(Profile, Vec<Warning>), ReadError> {
    let mut warnings = Warnings::default();
    let sampling = if smallest.is_finite() {
        warnings.add(0, "the file does not say its sampling interval: taken from its smallest sample");
        Sampling::Every { bytes: smallest as u64 }
    } else {
        warnings.add(0, "no samples in the file: no error bars");
        Sampling::Unknown
    };
    let mut profile = Profile::new(Kind::Stack, sampling);
    let mut frames = Frames::default();
    let mut indices = Vec::with_capacity(nodes.len());
    for node in nodes {
        let name = if node.function.is_empty() { "(anonymous)" } else { &node.function };
        // The place belongs to the name: most functions of JavaScript have none of their own.
        let file = node.url.rsplit('/').next().unwrap_or_default();
        let placed = if file.is_empty() { name.to_owned() } else { format!("{name} {file}:{}", node.line) };
        let (name, file) = (frames.texts.keep(&placed), frames.texts.keep(&node.url));
        let frame = Frame { name, file, line: node.line, offset: 0 };
        let too_many = ReadError::TooMany { most: FRAMES_MAX as u64, what: "frames" };
        indices.push(frames.index(frame, &mut profile.frames).ok_or(too_many)?);
    }
    for (at, node) in nodes.iter().enumerate().filter(|(_, node)| node.bytes > 0.0) {
        let mut stack = vec![indices[at]];
        let mut parent = node.parent;
        while let Some(at) = parent.filter(|_| stack.len() < STACK_MAX) {
            // The root of the tree is no function.
            if nodes[at].parent.is_some() {
                stack.push(indices[at]);
            }
            parent = nodes[at].parent;
        }
        profile.entries.push(Entry { frames: stack, bytes: node.bytes, count: node.samples as f64 });
    }
    frames.warn(&mut warnings);
    Ok((profile, warnings.into_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_tree() {
        let text = r#"{"head":{"callFrame":{"functionName":"(root)","scriptId":"0","url":"","lineNumber":-1,"columnNumber":-1},
            "selfSize":0,"id":1,"children":[{"callFrame":{"functionName":"serve","url":"file:///srv/app.js","lineNumber":8},
            "selfSize":10,"id":2,"children":[{"callFrame":{"functionName":"","url":"file:///srv/app.js","lineNumber":20},
            "selfSize":600.5,"id":3,"children":[]}]}]},"samples":[{"size":300,"nodeId":3,"ordinal":1},{"size":310,"nodeId":3}]}"#;
        let (profile, warnings) = read(text.as_bytes()).unwrap();
        assert_eq!(profile.rows()[0].key, "(anonymous) app.js:21 ← serve app.js:9");
        assert_eq!((profile.rows()[0].count, profile.bytes()), (2, 610.5));
        assert_eq!(profile.sampling, Sampling::Every { bytes: 300 });
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = 100_000;
        let open = r#"{"callFrame":{"functionName":"f"},"selfSize":1,"id":1,"children":["#;
        let text = format!(r#"{{"head":{}{}}}"#, open.repeat(deep), "]}".repeat(deep));
        assert_eq!(read(text.as_bytes()).unwrap().0.entries.len(), deep);
    }

    #[test]
    fn torn_files_are_errors_with_their_place() {
        for (text, expected) in [
            ("", "at byte 0: not a JSON object"),
            ("[1]", "at byte 0: not a JSON object"),
            (r#"{"head":{"#, "at byte 9: the file ends too early"),
            (r#"{"samples":[]}"#, "at byte 14: no head: not a sampling heap profile"),
            (r#"{"head":{"id":1e}}"#, "at byte 14: a number that cannot be read"),
            (r#"{"head":{"x":"abc"#, "at byte 13: a text that does not end"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
