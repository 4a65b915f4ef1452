//! What the program's environment needs so that it can be captured: plain values in, changes out. What the operator set wins; an
//! empty value opts out of that variable; `--heap=off` of all.
//!
//! | variable | gets | when |
//! |---|---|---|
//! | `NODE_OPTIONS` | `--heapsnapshot-signal=SIGUSR2 --diagnostic-dir=DIR`, each unless it is there already | always but `off` |
//! | `NODE_OPTIONS` | `--require=AGENT` | `profile`, `full`; not where Node's permission model is asked for |
//! | `PLIMSOLL_HEAP_SOCKET` | the socket of `agent.rs` | always but `off` |
//! | `MALLOC_CONF`, `_RJEM_MALLOC_CONF` | `prof:true,…,prof_prefix:…` | `jemalloc` |

use std::path::{Path, PathBuf};

use super::mode::Mode;
use crate::supervise::derive::{Change, Derived};
use crate::supervise::reason::signal_number;

/// The signal when none is set already.
const SIGNAL: &str = "SIGUSR2";
const SIGNAL_OPTION: &str = "--heapsnapshot-signal";
const DIR_OPTION: &str = "--diagnostic-dir";
/// How jemalloc is asked to sample: one in 512 KiB, a profile at each new high of its mappings and every 8 GiB allocated.
const JEMALLOC: &str = "prof:true,prof_active:true,lg_prof_sample:19,prof_gdump:true,lg_prof_interval:33";

/// Where things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// Where runtimes write.
    pub(crate) tmp: PathBuf,
    /// The agent that Node loads.
    pub(crate) agent: PathBuf,
    /// The socket.
    pub(crate) socket: PathBuf,
}

/// How a Node of this environment takes a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSetup {
    /// At this signal.
    pub(crate) signal: i32,
    /// Into this directory.
    pub(crate) dir: PathBuf,
}

/// The beginning of the names of jemalloc's profiles.
pub(crate) fn jemalloc_prefix(tmp: &Path) -> PathBuf {
    tmp.join("jemalloc")
}

/// What is set for the program. `env` tells what it would get otherwise.
pub(crate) fn derive(mode: &Mode, places: &Places, env: impl Fn(&str) -> Option<String>) -> Vec<Derived> {
    if *mode == Mode::Off {
        return Vec::new();
    }
    let derived = |name, change, note: &str| Derived { name, change, note: note.to_owned() };
    let socket = places.socket.display().to_string();
    let mut all = vec![
        node(mode, places, env("NODE_OPTIONS")),
        derived("PLIMSOLL_HEAP_SOCKET", Change::Set(socket), "where the program is asked for profiles"),
    ];
    if *mode == Mode::Jemalloc {
        let ours = format!("{JEMALLOC},prof_prefix:{}", jemalloc_prefix(&places.tmp).display());
        for name in ["MALLOC_CONF", "_RJEM_MALLOC_CONF"] {
            all.push(match env(name) {
                Some(text) if text.is_empty() => derived(name, Change::Remove, "opted out by an empty value"),
                Some(text) if text.split(',').any(|pair| pair.starts_with("prof_prefix:")) => {
                    derived(name, Change::Keep, "already holds prof_prefix")
                }
                // Of two values jemalloc takes the later one: what the operator set stays.
                Some(text) => derived(name, Change::Set(format!("{ours},{text}")), "put before; jemalloc samples"),
                None => derived(name, Change::Set(ours.clone()), "jemalloc samples"),
            });
        }
    }
    all
}

/// How a Node with these `NODE_OPTIONS` takes a snapshot; it writes to `cwd` where they name no directory, and from there on where they name a relative one. `None`: not at all.
pub(crate) fn setup(options: &str, cwd: &Path) -> Option<NodeSetup> {
    let words = words(options);
    let signal = signal_number(&value(&words, SIGNAL_OPTION)?)?;
    // Node takes a relative one from where it is when it writes.
    Some(NodeSetup { signal, dir: value(&words, DIR_OPTION).map_or_else(|| cwd.to_owned(), |dir| cwd.join(dir)) })
}

fn node(mode: &Mode, places: &Places, set: Option<String>) -> Derived {
    let name = "NODE_OPTIONS";
    if set.as_deref() == Some("") {
        return Derived { name, change: Change::Remove, note: "opted out by an empty value".to_owned() };
    }
    let text = set.unwrap_or_default();
    let words = words(&text);
    let mut ours = Vec::with_capacity(3);
    if value(&words, SIGNAL_OPTION).is_none() {
        ours.push(format!("{SIGNAL_OPTION}={SIGNAL}"));
    }
    if value(&words, DIR_OPTION).is_none() {
        ours.push(quoted(&format!("{DIR_OPTION}={}", places.tmp.display())));
    }
    let permission = words.iter().any(|word| word == "--permission" || word == "--experimental-permission");
    if mode.loads_agent() && !permission {
        ours.push(quoted(&format!("--require={}", places.agent.display())));
    }
    if ours.is_empty() {
        return Derived { name, change: Change::Keep, note: "already set up for snapshots".to_owned() };
    }
    let added = ours.join(" ");
    let whole = if text.is_empty() { added } else { format!("{text} {added}") };
    Derived { name, change: Change::Set(whole), note: "snapshots at a signal".to_owned() }
}

/// The value of a Node option, as `--name=value` or `--name value`; Node takes `_` for `-` in names.
fn value(words: &[String], option: &str) -> Option<String> {
    words.iter().enumerate().find_map(|(at, word)| {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let named = name.replace('_', "-") == option;
        named.then(|| value.map(str::to_owned).or_else(|| words.get(at + 1).cloned())).flatten()
    })
}

/// One word of `NODE_OPTIONS`, quoted where it has to be (Node: double quotes, with a backslash before `"` and `\`).
fn quoted(word: &str) -> String {
    if !word.contains([' ', '"', '\\']) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The words of `NODE_OPTIONS`, as Node splits them.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted => word.extend(letters.next()),
            '"' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            letter => word.push(letter),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(dir: &str) -> Places {
        let dir = PathBuf::from(dir);
        Places { tmp: dir.join("tmp"), agent: dir.join("agent.cjs"), socket: dir.join("heap.sock") }
    }

    fn with(mode: &Mode, dir: &str, env: &[(&str, &str)]) -> Vec<(&'static str, Change)> {
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        derive(mode, &places(dir), lookup).into_iter().map(|one| (one.name, one.change)).collect()
    }

    fn set(text: &str) -> Change {
        Change::Set(text.to_owned())
    }

    #[test]
    fn node_is_set_up_for_snapshots_and_loads_the_agent_only_where_it_was_asked_for() {
        let all = with(&Mode::Auto, "/s", &[("NODE_OPTIONS", "--max-old-space-size=188")]);
        let expected = "--max-old-space-size=188 --heapsnapshot-signal=SIGUSR2 --diagnostic-dir=/s/tmp";
        assert_eq!(all, [("NODE_OPTIONS", set(expected)), ("PLIMSOLL_HEAP_SOCKET", set("/s/heap.sock"))]);
        let all = with(&Mode::Full, "/s", &[]);
        let expected = "--heapsnapshot-signal=SIGUSR2 --diagnostic-dir=/s/tmp --require=/s/agent.cjs";
        assert_eq!(all[0].1, set(expected));
        let all = with(&Mode::Full, "/s", &[("NODE_OPTIONS", "--permission")]);
        assert!(matches!(&all[0].1, Change::Set(text) if !text.contains("--require")), "{all:?}");
        assert_eq!(with(&Mode::Off, "/s", &[]), []);
    }

    #[test]
    fn what_the_operator_set_is_kept() {
        let both = "--heapsnapshot-signal SIGUSR1 \"--diagnostic-dir=/var/my dumps\"";
        assert_eq!(with(&Mode::Auto, "/s", &[("NODE_OPTIONS", both)])[0].1, Change::Keep);
        let all = with(&Mode::Auto, "/s", &[("NODE_OPTIONS", "--heapsnapshot_signal=SIGUSR1")]);
        assert_eq!(all[0].1, set("--heapsnapshot_signal=SIGUSR1 --diagnostic-dir=/s/tmp"));
        assert_eq!(with(&Mode::Full, "/s", &[("NODE_OPTIONS", "")])[0].1, Change::Remove);
    }

    #[test]
    fn what_a_node_runs_with_tells_how_it_is_captured() {
        let read = |options: &str| setup(options, Path::new("/cwd")).map(|setup| (setup.signal, setup.dir));
        let dumps = PathBuf::from("/var/my dumps");
        let both = "--heapsnapshot-signal SIGUSR1 \"--diagnostic-dir=/var/my dumps\"";
        assert_eq!(read(both), Some((libc::SIGUSR1, dumps)));
        assert_eq!(read("--heapsnapshot_signal=USR2"), Some((libc::SIGUSR2, "/cwd".into())));
        assert_eq!(
            read("--heapsnapshot-signal=USR2 --diagnostic-dir=dumps"),
            Some((libc::SIGUSR2, "/cwd/dumps".into()))
        );
        for none in ["", "--diagnostic-dir=/x", "--heapsnapshot-signal=NOPE", "--heapsnapshot-signal"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_path_with_a_blank_reaches_node_whole() {
        let all = with(&Mode::Full, "/my \"state\"", &[]);
        let Change::Set(text) = &all[0].1 else { panic!("{all:?}") };
        let dir = "/my \"state\"";
        assert_eq!(words(text)[1..], [format!("--diagnostic-dir={dir}/tmp"), format!("--require={dir}/agent.cjs")]);
        assert_eq!(setup(text, Path::new("/")).unwrap().dir, PathBuf::from(format!("{dir}/tmp")));
    }

    #[test]
    fn jemalloc_is_asked_to_sample_under_both_names() {
        let all = with(&Mode::Jemalloc, "/s", &[("MALLOC_CONF", "lg_prof_sample:14"), ("_RJEM_MALLOC_CONF", "")]);
        assert_eq!(all[2], ("MALLOC_CONF", set(&format!("{JEMALLOC},prof_prefix:/s/tmp/jemalloc,lg_prof_sample:14"))));
        assert_eq!(all[3], ("_RJEM_MALLOC_CONF", Change::Remove));
        let all = with(&Mode::Jemalloc, "/s", &[("MALLOC_CONF", "prof:true,prof_prefix:/x")]);
        assert_eq!(all[2].1, Change::Keep);
    }
}
