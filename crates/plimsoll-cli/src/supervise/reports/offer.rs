//! What the program's environment offers beside the derived limits: where to report, whom to notify, which pressure to watch.
//!
//! Pure but for looking at the group's pressure file. What the operator set wins for `MEMORY_PRESSURE_WATCH` (an empty value opts
//! out); `NOTIFY_SOCKET` is replaced, because Plimsoll stands between the program and the manager that set it. `--no-derive` leaves
//! both as they are; the report socket is always Plimsoll's own.

use std::path::Path;

use plimsoll::gauge::offered::{WATCH_VAR, WRITE_VAR, encode};
use plimsoll::report::{SOCKET_VAR, notify};

use super::super::derive::{Change, Derived};

/// The trigger as systemd writes it by default: some task stalled for 200 ms within 2 s.
const TRIGGER: &[u8] = b"some 200000 2000000\0";
/// The longest path that every client of sd_notify can name.
const PATH_BYTES_MAX: usize = 107;

/// What the program is offered: changes of its environment, not all of which are worth telling.
pub(crate) fn offers(
    socket: Option<&Path>,
    pressure: Option<&Path>,
    derive: bool,
    env: impl Fn(&str) -> Option<String>,
) -> Vec<Derived> {
    let set = |name, value: String, note: &str| Derived { name, change: Change::Set(value), note: note.to_owned() };
    let socket = socket.and_then(Path::to_str);
    let mut offers = match socket {
        Some(path) => vec![set(SOCKET_VAR, path.to_owned(), "where a service that embeds plimsoll reports")],
        // One of a supervisor above must not be taken for ours.
        None => {
            vec![Derived { name: SOCKET_VAR, change: Change::Remove, note: "there is no report socket".to_owned() }]
        }
    };
    if !derive {
        return offers;
    }
    if let Some(path) = socket.filter(|path| path.len() <= PATH_BYTES_MAX) {
        offers.push(set(notify::SOCKET_VAR, path.to_owned(), "sd_notify: shown, and passed on to a manager above"));
        // The manager's watchdog is about Plimsoll's own process; the program's signs of life are passed on in its name.
        if env(notify::WATCHDOG_VAR).is_some() && env(notify::WATCHDOG_PID_VAR).is_some() {
            let note = "its signs of life are passed on".to_owned();
            offers.push(Derived { name: notify::WATCHDOG_PID_VAR, change: Change::Remove, note });
        }
    }
    match (env(WATCH_VAR), pressure.and_then(Path::to_str)) {
        (Some(value), _) if value.is_empty() => {
            for name in [WATCH_VAR, WRITE_VAR] {
                offers.push(Derived { name, change: Change::Remove, note: "empty: opted out".to_owned() });
            }
        }
        (Some(_), _) => {
            offers.push(Derived { name: WATCH_VAR, change: Change::Keep, note: "as it was set".to_owned() });
        }
        (None, Some(file)) => {
            offers.push(set(WATCH_VAR, file.to_owned(), "the pressure of its own cgroup"));
            offers.push(set(WRITE_VAR, encode(TRIGGER), "some task stalled for 200 ms within 2 s"));
        }
        (None, None) => {}
    }
    offers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(derive: bool, env: &[(&str, &str)]) -> Vec<(&'static str, Change)> {
        let get = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let all = offers(Some("/s/report.sock".as_ref()), Some("/cg/memory.pressure".as_ref()), derive, get);
        all.into_iter().map(|one| (one.name, one.change)).collect()
    }

    #[test]
    fn what_is_offered_and_what_wins() {
        let set = |value: &str| Change::Set(value.to_owned());
        let (report, notify) = ((SOCKET_VAR, set("/s/report.sock")), ("NOTIFY_SOCKET", set("/s/report.sock")));
        let watch = (WATCH_VAR, set("/cg/memory.pressure"));
        let write = (WRITE_VAR, set("c29tZSAyMDAwMDAgMjAwMDAwMAA="));
        assert_eq!(offered(true, &[]), [report.clone(), notify.clone(), watch.clone(), write.clone()]);
        assert_eq!(offered(false, &[("NOTIFY_SOCKET", "/run/systemd/notify")]), std::slice::from_ref(&report));
        let kept = (WATCH_VAR, Change::Keep);
        assert_eq!(
            offered(true, &[(WATCH_VAR, "/proc/pressure/memory")]),
            [report.clone(), notify.clone(), kept.clone()]
        );
        assert_eq!(offered(true, &[(WATCH_VAR, "/dev/null")]), [report.clone(), notify.clone(), kept], "off stays off");
        let out = [(WATCH_VAR, Change::Remove), (WRITE_VAR, Change::Remove)];
        assert_eq!(offered(true, &[(WATCH_VAR, "")])[2..], out);
        let under = [("NOTIFY_SOCKET", "/run/systemd/notify"), ("WATCHDOG_USEC", "9"), ("WATCHDOG_PID", "1")];
        assert_eq!(offered(true, &under)[2], ("WATCHDOG_PID", Change::Remove));
        let long = format!("/{}", "x".repeat(120));
        let names: Vec<_> = offers(Some(long.as_ref()), None, true, |_| None).iter().map(|one| one.name).collect();
        assert_eq!(names, [SOCKET_VAR], "a path that other clients cannot name");
        assert_eq!(offers(None, None, true, |_| None)[0].change, Change::Remove);
    }
}
