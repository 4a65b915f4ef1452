//! sd_notify between the program and the service manager above Plimsoll: what is kept to be shown, and what is passed on.
//!
//! Plimsoll is the manager's main process; the program is not. So `READY`, `STATUS`, reloading, watchdog and time-out messages are
//! passed on in Plimsoll's name (`MAINPID` is its own), while `MAINPID`, `STOPPING` (the program may be started again) and
//! descriptors to be stored are not. A message is at most 4 KiB; nothing waits. Pure but for [`Relay::send`].

use std::time::Duration;

use plimsoll::report::notify::Notify;

use crate::snapshot::report::NotifyView;

/// The longest message, as systemd has it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4096;
/// What is kept of a status.
const STATUS_BYTES_MAX: usize = 256;
/// The keys that are passed on.
const PASSED_ON: [&str; 10] = [
    "READY",
    "RELOADING",
    "MONOTONIC_USEC",
    "STATUS",
    "ERRNO",
    "BUSERROR",
    "WATCHDOG",
    "WATCHDOG_USEC",
    "EXTEND_TIMEOUT_USEC",
    "VARLINKERROR",
];

/// The program's messages and the manager above, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    above: Notify,
    view: Option<NotifyView>,
    /// The program gave a sign of life in this life: from then on it has to.
    program_is_alive: bool,
}

impl Relay {
    /// For the manager that the environment names, if it names one.
    pub(crate) fn new(above: Notify) -> Relay {
        Relay { above, ..Relay::default() }
    }

    /// What is wrong with the environment's words about the manager.
    pub(crate) fn problem(&self) -> Option<String> {
        self.above.problem().map(ToString::to_string)
    }

    /// Takes one message of the program. False: it is none.
    pub(crate) fn take(&mut self, message: &[u8], own_pid: u32) -> bool {
        let Some(lines) = read(message) else { return false };
        let view = self.view.get_or_insert_with(NotifyView::default);
        view.messages_total += 1;
        for (key, value) in lines.iter().copied() {
            match key {
                "READY" => view.ready = value == "1",
                "RELOADING" => view.ready = false,
                "STOPPING" => view.stopping = value == "1",
                "STATUS" => view.status = Some(cut(value, STATUS_BYTES_MAX)).filter(|status| !status.is_empty()),
                "WATCHDOG" => self.program_is_alive = true,
                _ => {}
            }
        }
        if self.above.manager().is_some() {
            let text = passed_on(&lines, own_pid);
            let sent = !text.is_empty() && self.above.send(text.as_bytes());
            (view.forwarded_total, view.withheld_total) =
                (view.forwarded_total + u64::from(sent), view.withheld_total + u64::from(!sent));
        }
        true
    }

    /// Says something of Plimsoll's own to the manager.
    pub(crate) fn send(&self, message: &str) {
        // Lossy on purpose: the manager asks for nothing that it does not get again.
        self.above.send(message.as_bytes());
    }

    /// How often the manager wants a sign of life; `None`: not at all.
    pub(crate) fn alive_interval(&self) -> Option<Duration> {
        self.above.alive_interval()
    }

    /// A sign of life of Plimsoll's own, while the program gives none: between two lives, and for programs that never do.
    pub(crate) fn alive(&self) {
        if !self.program_is_alive {
            self.above.alive();
        }
    }

    /// Another life begins.
    pub(crate) fn new_life(&mut self) {
        self.program_is_alive = false;
        if let Some(view) = &mut self.view {
            (view.ready, view.stopping, view.status) = (false, false, None);
        }
    }

    pub(crate) fn view(&self) -> Option<NotifyView> {
        self.view.clone()
    }
}

fn cut(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The lines of a message; `None`: it is none.
fn read(message: &[u8]) -> Option<Vec<(&str, &str)>> {
    let text = std::str::from_utf8(message).ok().filter(|text| text.len() <= MESSAGE_BYTES_MAX)?;
    let lines: Option<Vec<_>> = text.lines().filter(|line| !line.is_empty()).map(|line| line.split_once('=')).collect();
    let is_key =
        |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit());
    lines.filter(|lines| !lines.is_empty() && lines.iter().all(|(key, _)| is_key(key)))
}

/// What of a message goes on, in Plimsoll's name; empty: nothing.
fn passed_on(lines: &[(&str, &str)], own_pid: u32) -> String {
    let mut text = String::new();
    for (key, value) in lines.iter().filter(|(key, _)| PASSED_ON.contains(key)) {
        text.push_str(&format!("{key}={value}\n"));
        if *key == "READY" {
            text.push_str(&format!("MAINPID={own_pid}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn what_goes_on_and_what_does_not() {
        for (message, expected) in [
            ("READY=1", Some("READY=1\nMAINPID=7\n")),
            ("READY=1\nMAINPID=99\nSTATUS=serving\n", Some("READY=1\nMAINPID=7\nSTATUS=serving\n")),
            ("STOPPING=1", Some("")),
            ("FDSTORE=1\nFDNAME=x", Some("")),
            ("BARRIER=1", Some("")),
            ("WATCHDOG=1", Some("WATCHDOG=1\n")),
            ("RELOADING=1\nMONOTONIC_USEC=5", Some("RELOADING=1\nMONOTONIC_USEC=5\n")),
            ("X_OWN=1", Some("")),
            ("", None),
            ("hello", None),
            ("ready=1", None),
        ] {
            let lines = read(message.as_bytes());
            assert_eq!(lines.map(|lines| passed_on(&lines, 7)).as_deref(), expected, "{message:?}");
        }
        assert!(read(b"READY=\xff").is_none());
        assert!(read(format!("STATUS={}", "x".repeat(MESSAGE_BYTES_MAX)).as_bytes()).is_none());
    }

    #[test]
    fn the_manager_hears_the_program_and_plimsoll_is_alive_for_one_that_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let heard = || {
            let mut buffer = [0; 4096];
            manager.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
        };
        let notify = Notify::from_vars(|name| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into()),
            "WATCHDOG_USEC" => Some("2".into()),
            _ => None,
        });
        let mut relay = Relay::new(notify);
        relay.alive();
        assert_eq!(heard().as_deref(), Some("WATCHDOG=1"), "before the program says anything");
        assert!(relay.take(b"READY=1\nSTATUS=two\x07 lines", 7));
        assert_eq!(heard().as_deref(), Some("READY=1\nMAINPID=7\nSTATUS=two\x07 lines\n"));
        assert!(relay.take(b"WATCHDOG=1", 7));
        assert_eq!(heard().as_deref(), Some("WATCHDOG=1\n"));
        std::thread::sleep(Duration::from_micros(5));
        relay.alive();
        assert_eq!(heard(), None, "the program has to go on by itself");
        assert!(!relay.take(b"garbage", 7));
        let view = relay.view().unwrap();
        assert_eq!(
            (view.ready, view.status.as_deref(), view.messages_total, view.forwarded_total),
            (true, Some("two? lines"), 2, 2)
        );
        relay.new_life();
        relay.alive();
        assert_eq!(heard().as_deref(), Some("WATCHDOG=1"));
        assert!(!relay.view().unwrap().ready);
        drop(manager);
        assert!(relay.take(b"STOPPING=1", 7), "a manager that is gone is no reason to fail");
        assert_eq!(relay.view().unwrap().withheld_total, 1);
    }
}
