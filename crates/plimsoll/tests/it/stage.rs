//! What live tests measure: players (this very test binary again, in a process of its own that does what it is told) and
//! memory groups below the one that the tests run in, named `plimsoll-test-*`.
//!
//! A player answers each command with one line; it ends when its standard input does, and all that it forked with it. A
//! group is removed when dropped, after its players.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use plimsoll::gauge::Root;
use plimsoll::gauge::group::Group;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::sys;

pub(crate) const MIB: u64 = 1 << 20;

const ON_STAGE: &str = "PLIMSOLL_TEST_ON_STAGE";
const ANSWER: &str = "@ ";

/// Whether this process was started by [`this_binary`]: then the test that it was started for plays its part.
pub(crate) fn on_stage() -> bool {
    std::env::var_os(ON_STAGE).is_some()
}

/// This test binary, to run one test of it on its main thread, on stage.
pub(crate) fn this_binary(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary's own path"));
    // One test thread: libtest then runs the test on the main thread, and the process has no other.
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ON_STAGE, "1");
    command
}

/// Runs `play` in a process of its own: this binary again, with nothing but `test`, which is the name of the test that calls this.
pub(crate) fn alone(test: &str, play: fn()) {
    if on_stage() {
        return play();
    }
    let output = this_binary(test).output().expect("the test binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "no test is called {test}: {text}");
    print!("{text}");
}

/// A process that does what it is told.
pub(crate) struct Player {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Player {
    pub(crate) fn start() -> Player {
        let mut child = this_binary("stage::player")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut player = Player { child, input, output };
        assert_eq!(player.answer().as_deref(), Some("ready"));
        player
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Tells a command without waiting for its answer.
    pub(crate) fn begin(&mut self, command: &str) {
        writeln!(self.input.as_mut().expect("open until drop"), "{command}").expect("the player listens");
    }

    /// The next answer; `None` when the player has ended.
    pub(crate) fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("text") > 0 {
            if let Some((_, answer)) = line.trim_end_matches('\n').split_once(ANSWER) {
                return Some(answer.to_owned());
            }
            line.clear();
        }
        None
    }

    /// Whether an answer waits to be read.
    pub(crate) fn has_answered(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.output.get_ref().as_fd(), PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll") > 0
    }

    /// Tells a command and waits for the numbers that answer it.
    pub(crate) fn tell(&mut self, command: &str) -> Vec<i32> {
        self.begin(command);
        let answer = self.answer().unwrap_or_else(|| panic!("the player ended at {command:?}"));
        answer.split_whitespace().map(|word| word.parse().expect("a number")).collect()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.input = None;
        self.child.wait().expect("our own child");
    }
}

/// Forked children of a player, each of which ends when its pipe does, and may be told to go on with a byte before.
#[derive(Default)]
struct Company(Vec<(i32, Option<OwnedFd>)>);

impl Company {
    /// Forks a child that calls `first`, waits for a byte, calls `then` and waits for the end.
    fn fork(&mut self, first: impl FnOnce(), then: impl FnOnce()) -> i32 {
        let (wait, go) = rustix::pipe::pipe().expect("a pipe");
        let mut go = Some(go);
        let pid = sys::fork(|| {
            // Only the player keeps these ends: they close when it ends, and the children see it.
            go = None;
            self.0.clear();
            first();
            if rustix::io::read(&wait, &mut [0u8; 1][..]) == Ok(1) {
                then();
                rustix::io::read(&wait, &mut [0u8; 1][..]).ok();
            }
        });
        self.0.push((pid, go));
        pid
    }

    fn go_on(&mut self, pid: i32) {
        let (_, go) = self.0.iter().find(|(of, _)| *of == pid).expect("one of ours");
        rustix::io::write(go.as_ref().expect("not ended"), b"g").expect("it waits");
    }

    /// Ends one and collects it.
    fn end(&mut self, pid: i32) {
        let (_, go) = self.0.iter_mut().find(|(of, _)| *of == pid).expect("one of ours");
        *go = None;
        collect(pid);
    }
}

fn collect(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).expect("our own child");
}

fn fill(mib: usize, with: u8) -> Vec<u8> {
    vec![with; mib << 20]
}

/// The pages of `memory`, written anew.
fn rewrite(memory: &mut [Vec<u8>]) {
    memory.iter_mut().flat_map(|part| part.iter_mut().step_by(4096)).for_each(|byte| *byte = byte.wrapping_add(1));
}

fn page_cache(mib: usize, path: &Path) {
    let mut file = std::fs::File::create(path).expect("a writable path");
    file.write_all(&fill(mib, 1)).expect("room on the disk");
    file.sync_all().expect("a disk");
    // Twice: pages that were read again count as hot.
    for _ in 0..2 {
        assert_eq!(std::fs::read(path).expect("readable").len(), mib << 20);
    }
}

fn shared_memory(mib: usize) -> std::fs::File {
    let fd = rustix::fs::memfd_create("plimsoll-test", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let mut file = std::fs::File::from(fd);
    file.write_all(&fill(mib, 1)).expect("shared memory");
    file
}

/// A child in a session of its own, with a grandchild that holds `mib`; `orphan` ends the child at once.
fn session(company: &mut Company, mib: usize, orphan: bool) -> String {
    let (told, tell) = rustix::pipe::pipe().expect("a pipe");
    // The grandchild ends with the player: nobody else keeps this pipe's other end.
    let (wait, hold) = rustix::pipe::pipe().expect("a pipe");
    let mut hold = Some(hold);
    let first = || {
        hold = None;
        rustix::process::setsid().expect("not a leader");
        sys::fork(|| {
            let memory = fill(mib, 1);
            let pid = rustix::process::getpid().as_raw_nonzero().get();
            rustix::io::write(&tell, &pid.to_ne_bytes()).expect("the player reads");
            rustix::io::read(&wait, &mut [0u8; 1][..]).ok();
            drop(memory);
        });
    };
    let child = company.fork(first, || {});
    let mut grandchild = [0; 4];
    assert_eq!(rustix::io::read(&told, &mut grandchild[..]), Ok(4));
    let grandchild = i32::from_ne_bytes(grandchild);
    company.0.push((grandchild, hold));
    if orphan {
        company.end(child);
    }
    format!("{child} {grandchild}")
}

/// Children that live for about a millisecond, at most 16 at a time.
fn churn(count: usize) {
    let mut alive = std::collections::VecDeque::new();
    for _ in 0..count {
        alive.push_back(sys::fork(|| std::thread::sleep(std::time::Duration::from_millis(1))));
        if alive.len() == 16 {
            collect(alive.pop_front().expect("16"));
        }
    }
    alive.into_iter().for_each(collect);
}

/// A player answers, and ends with its input. On stage it is the player itself.
#[test]
fn player() {
    if on_stage() {
        return play();
    }
    let mut player = Player::start();
    assert_eq!(player.tell("anon 1"), []);
    let child = player.tell("worker");
    assert_eq!(child.len(), 1);
    assert_eq!(player.tell(&format!("end {}", child[0])), []);
    player.input = None;
    assert_eq!(player.answer(), None);
    assert!(player.child.wait().expect("our own child").success());
}

/// What a player does, until its input ends.
fn play() {
    let (mut memory, mut files, mut company) = (Vec::new(), Vec::new(), Company::default());
    println!("{ANSWER}ready");
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<usize>().expect("a number");
        let mut answer = String::new();
        match words[0] {
            "anon" => memory.push(fill(number(1), 1)),
            "file" => page_cache(number(1), Path::new(words[2])),
            "shmem" => files.push(shared_memory(number(1))),
            "worker" => answer = company.fork(|| {}, || rewrite(&mut memory)).to_string(),
            "go-on" => company.go_on(i32::try_from(number(1)).expect("a pid")),
            "end" => company.end(i32::try_from(number(1)).expect("a pid")),
            "session" => answer = session(&mut company, number(1), false),
            "orphan" => answer = session(&mut company, number(1), true),
            "subreaper" => rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("allowed"),
            "churn" => churn(number(1)),
            other => panic!("no such command: {other}"),
        }
        println!("{ANSWER}{answer}");
    }
}

/// A memory group of the test's own; removed when dropped.
pub(crate) struct TestGroup(Group);

impl TestGroup {
    /// A group below the one that this process is in; `Err` says why there is none.
    pub(crate) fn new() -> Result<TestGroup, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own_pid = rustix::process::getpid().as_raw_nonzero().get();
        let own = Group::of_pid(&Root::default(), own_pid).map_err(|why| why.to_string())?;
        let name = format!("plimsoll-test-{own_pid}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        TestGroup::create(own.child(&name))
    }

    /// A group below this one; drop it first.
    pub(crate) fn below(&self, name: &str) -> TestGroup {
        TestGroup::create(self.0.child(name)).expect("as allowed as the group above")
    }

    fn create(group: Group) -> Result<TestGroup, String> {
        std::fs::create_dir(group.dir()).map_err(|e| format!("{}: {e}", group.dir().display()))?;
        let made = TestGroup(group);
        // v2: the group above may not hand on its memory controller. A group that may not be limited is of no use.
        made.try_limit(u64::MAX >> 2).map_err(|e| format!("{}: {e}", made.0.dir().display()))?;
        Ok(made)
    }

    pub(crate) fn group(&self) -> &Group {
        &self.0
    }

    pub(crate) fn limit(&self, bytes: u64) {
        self.try_limit(bytes).expect("our own group");
    }

    fn try_limit(&self, bytes: u64) -> std::io::Result<()> {
        std::fs::write(self.0.dir().join(self.0.limit_file()), bytes.to_string())
    }

    pub(crate) fn admit(&self, pid: i32) {
        std::fs::write(self.0.dir().join("cgroup.procs"), pid.to_string()).expect("our own group and child");
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        // What a player forked ends just after it, and the kernel lets go of a group a moment after its last process.
        for _ in 0..500 {
            match std::fs::remove_dir(self.0.dir()) {
                Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => return,
            }
        }
        eprintln!("{} is left behind", self.0.dir().display());
    }
}

/// Runs `test` with a group of its own, or prints why it is skipped.
pub(crate) fn with_group(test: impl FnOnce(TestGroup)) {
    match TestGroup::new() {
        Ok(group) => test(group),
        Err(why) => println!("skipped, no memory group can be made here: {why}"),
    }
}

/// What is below the tests' own directory for files that must be on a disk; `None`, with the reason printed, on a tmpfs,
/// whose pages are shared memory.
pub(crate) fn disk() -> Option<tempfile::TempDir> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kind = rustix::fs::statfs(dir).expect("a mounted directory").f_type;
    if u64::try_from(kind) == Ok(TMPFS_MAGIC) {
        println!("skipped, {} is on a tmpfs", dir.display());
        return None;
    }
    Some(tempfile::tempdir_in(dir).expect("a writable directory"))
}
