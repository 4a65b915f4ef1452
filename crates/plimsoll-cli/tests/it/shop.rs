//! A state directory with one log store that a test writes through the real intake, and the binary that reads it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plimsoll_store::{Intake, Settings, Store, Stream};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A state directory.
pub(crate) struct Shop {
    dir: tempfile::TempDir,
}

/// One name's store, open for writing, with a pipe in front of it.
pub(crate) struct Writer {
    intake: Intake,
    store: Option<Store>,
    pipe: (OwnedFd, OwnedFd),
}

impl Shop {
    pub(crate) fn new() -> Shop {
        Shop { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn settings(&self, name: &str) -> Settings {
        Settings::new(self.home(name), self.dir.path().join(format!(".{name}.ring")), name)
    }

    pub(crate) fn writer(&self, name: &str) -> Writer {
        Writer::open(self.settings(name))
    }

    /// `plimsoll logs words… --dir DIR`, in UTC.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = crate::plimsoll();
        command.arg("logs").args(words).arg("--dir").arg(self.path());
        command.env("TZ", "UTC").stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn logs(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What it prints; it must succeed and say nothing on stderr.
    #[track_caller]
    pub(crate) fn printed(&self, words: &[&str]) -> String {
        let output = self.logs(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{words:?}: {}, {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `--json` prints.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Vec<serde_json::Value> {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        self.printed(&words).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

impl Writer {
    pub(crate) fn open(settings: Settings) -> Writer {
        let (intake, store, _) = plimsoll_store::open(settings).unwrap();
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        Writer { intake, store: Some(store), pipe }
    }

    /// Writes `data` on `stream` as a program would: through a pipe.
    pub(crate) fn write(&mut self, stream: Stream, data: &[u8]) {
        for piece in data.chunks(32 << 10) {
            let mut rest = piece;
            while !rest.is_empty() {
                rest = &rest[rustix::io::write(&self.pipe.1, rest).unwrap()..];
                while let Ok(landed) = self.intake.read_from(stream, self.pipe.0.as_fd(), unix_ns()) {
                    if landed.bytes == 0 {
                        break;
                    }
                }
            }
        }
    }

    pub(crate) fn out(&mut self, text: &str) {
        self.write(Stream::Stdout, text.as_bytes());
    }

    pub(crate) fn note(&mut self, text: &str) {
        self.intake.note(text, unix_ns());
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// A sign of life `ago`.
    pub(crate) fn beat(&self, ago: Duration) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap());
        self.intake.heartbeat(u64::try_from((now - ago).as_nanos()).unwrap());
    }

    /// Ends as a supervisor does: everything sealed, the ring gone.
    pub(crate) fn close(mut self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap());
        self.store.take().unwrap().close(now + PATIENCE);
    }

    /// Ends as a SIGKILL does: nothing is closed, the ring stays.
    pub(crate) fn abandon(self) {
        std::mem::forget(self);
    }
}

fn unix_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// A running `logs -f` and what it has printed.
pub(crate) struct Following {
    child: std::process::Child,
    stdout: File,
    text: String,
}

impl Following {
    pub(crate) fn start(mut command: Command) -> Following {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = File::from(OwnedFd::from(child.stdout.take().unwrap()));
        rustix::io::ioctl_fionbio(&stdout, true).unwrap();
        Following { child, stdout, text: String::new() }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits until what was printed holds `what`; how long that took.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str) -> Duration {
        let begin = Instant::now();
        let mut looked = 0;
        while !self.text[looked..].contains(what) {
            let end = String::from_utf8_lossy(&self.text.as_bytes()[self.text.len().saturating_sub(300)..]);
            assert!(begin.elapsed() < PATIENCE, "no {what:?} but …{end:?}");
            looked = self.text.len().saturating_sub(what.len());
            while !self.text.is_char_boundary(looked) {
                looked -= 1;
            }
            let mut buffer = [0; 65536];
            match self.stdout.read(&mut buffer) {
                Ok(n) => self.text.push_str(&String::from_utf8_lossy(&buffer[..n])),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        begin.elapsed()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Nobody reads its output any more.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = File::open("/dev/null").unwrap();
    }

    /// Waits for its end; how it ended and what it said on stderr.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (std::process::ExitStatus, String) {
        let begin = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if begin.elapsed() > PATIENCE => {
                    self.child.kill().ok();
                    panic!("it does not end");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status, said)
    }

    /// CPU that it has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }
}

/// Peak resident memory of a process that has ended is not to be had; this is that of one that still runs, in KiB.
pub(crate) fn peak_kib(pid: rustix::process::Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Writes a file that `Shop` cannot make itself.
pub(crate) fn put(path: &Path, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}
