//! The thread that tells the story: looks at the supervisor through its socket and its log every [`LOOK`], as any other
//! command would, and writes to stdout; asks it to end when `--for` is over or nobody reads any more.
//!
//! On a terminal the last line moves; elsewhere there is a line of progress every [`PROGRESS`]. A stdout that takes
//! nothing for [`PATIENCE`] loses what was to be said, so that a stopped terminal stops nobody.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock, wall};
use plimsoll_store::{EntryKind, Query, Reader, Stream};
use regex::bytes::Regex;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::story::{Plan, SHOWN_MAX, Story};
use crate::layout::Layout;
use crate::snapshot::{Snapshot, found};
use crate::view::text::{Line, colour_for_stdout, columns_of_stdout, write_lines};
use crate::web::client::Client;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two lines of progress where nothing can move.
const PROGRESS: Duration = Duration::from_secs(2);
/// How long a stdout that is full is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// `PIPE_BUF`: what a writable pipe takes without blocking.
const PIECE_BYTES: usize = 4096;
/// Columns where stdout is no terminal.
const COLUMNS: usize = 100;

/// The running thread.
pub(super) struct Teller {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(Tale, io::Result<()>)>,
}

/// Starts it; it says nothing before this process supervises.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn start(layout: Layout, plan: Plan) -> io::Result<Teller> {
    let over = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&over);
    let thread = std::thread::Builder::new().name("story".into()).spawn(move || {
        let mut tale = Tale::new(layout, plan);
        let told = tale.tell(&until);
        (tale, told)
    })?;
    Ok(Teller { over, thread })
}

impl Teller {
    /// Tells the rest, with the summary when it was `well` begun, and joins the thread.
    ///
    /// # Errors
    /// What stdout says, except that nobody reads it.
    pub(super) fn end(self, well: bool) -> io::Result<()> {
        self.over.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        let Ok((mut tale, told)) = self.thread.join() else {
            return Err(io::Error::other("the thread panicked"));
        };
        let told = told.and_then(|()| if well { tale.end() } else { Ok(()) });
        match told {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            told => told,
        }
    }
}

struct Tale {
    layout: Layout,
    client: Client,
    plan: Plan,
    story: Option<Story>,
    /// Where the service with this pid said that it serves.
    url: Option<(u32, String)>,
    serves: Option<Regex>,
    moves: bool,
    colour: bool,
}

impl Tale {
    fn new(layout: Layout, plan: Plan) -> Tale {
        use std::io::IsTerminal as _;
        Tale {
            client: Client::new(layout.socket()),
            layout,
            plan,
            story: None,
            url: None,
            serves: Regex::new("^serves (http://[^ ]+)").ok(),
            moves: io::stdout().is_terminal(),
            colour: colour_for_stdout(),
        }
    }

    /// Looks and tells until it is over.
    fn tell(&mut self, over: &AtomicBool) -> io::Result<()> {
        let mut began = None;
        let mut progress = Duration::ZERO;
        let mut asked = false;
        while !over.load(Ordering::SeqCst) {
            std::thread::park_timeout(LOOK);
            // Another demo may hold the socket while this one finds out that it does.
            let Some(now) = self.client.status().ok().filter(|now| now.supervisor.pid == std::process::id()) else {
                continue;
            };
            let clock = MonotonicClock.now();
            let since = clock.saturating_sub(*began.get_or_insert(clock));
            let said = self.look(&now).and_then(|news| {
                if news {
                    progress = since + PROGRESS;
                }
                let Some(story) = &self.story else { return Ok(()) };
                if self.moves {
                    let columns = columns_of_stdout().unwrap_or(80);
                    let mut text = String::from("\r\x1b[K");
                    story.live(&now, columns).write(&mut text, self.colour);
                    put(text.as_bytes())
                } else if since >= progress {
                    progress = since + PROGRESS;
                    story.progress(&now).map_or(Ok(()), |line| put(write_lines(&[line], self.colour).as_bytes()))
                } else {
                    Ok(())
                }
            });
            if (said.is_err() || self.plan.length.is_some_and(|length| since >= length)) && !asked {
                // Not accepted now, then at the next look.
                asked = self.client.stop().is_ok();
            }
            if asked && said.is_err() {
                return said;
            }
        }
        Ok(())
    }

    /// Tells what is new; whether anything was.
    fn look(&mut self, now: &Snapshot) -> io::Result<bool> {
        let mut lines = Vec::new();
        if self.story.is_none() {
            let columns = if self.moves { columns_of_stdout().unwrap_or(80) } else { COLUMNS };
            let began = now.supervisor.started_unix.min(wall().as_secs_f64());
            let story = Story::new(self.plan.clone(), columns, began);
            lines = story.introduction(now);
            self.story = Some(story);
        }
        let url = self.find_url(now);
        let decisions = self.client.decisions(SHOWN_MAX).unwrap_or_default();
        if let Some(story) = &mut self.story {
            lines.extend(story.hear(now, &decisions, url.as_deref()));
        }
        self.print(&lines)?;
        Ok(!lines.is_empty())
    }

    fn print(&self, lines: &[Line]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let clear = if self.moves { "\r\x1b[K" } else { "" };
        put(format!("{clear}{}", write_lines(lines, self.colour)).as_bytes())
    }

    /// What the service's own log says about where it serves.
    fn find_url(&mut self, now: &Snapshot) -> Option<String> {
        let child = now.child.as_ref()?;
        if let Some((_, url)) = self.url.as_ref().filter(|(pid, _)| *pid == child.pid) {
            return Some(url.clone());
        }
        let serves = self.serves.as_ref()?;
        // The clock of the log is the same; what its last life said is older.
        let since = Duration::try_from_secs_f64((child.started_unix - 0.05).max(0.0)).ok()?;
        let query = Query {
            since_unix_ns: u64::try_from(since.as_nanos()).ok(),
            streams: vec![Stream::Stdout],
            pattern: Some(serves.clone().into()),
            ..Query::default()
        };
        let mut url = None;
        let mut reader = Reader::open(&self.layout.home()).ok()?;
        let read = reader.tail(&query, 1, &mut |entry| {
            if let EntryKind::Line { text, .. } = entry.kind
                && let Some(found) = serves.captures(text).and_then(|found| found.get(1))
            {
                url = Some(String::from_utf8_lossy(found.as_bytes()).into_owned());
            }
            ControlFlow::Continue(())
        });
        read.ok()?;
        self.url = url.clone().map(|url| (child.pid, url));
        url
    }

    /// What the files say after the end, and the summary.
    fn end(&mut self) -> io::Result<()> {
        let decisions = found::decisions(&self.layout, &self.client, false, SHOWN_MAX);
        let exit = found::look(&self.layout, &self.client).snapshot.last_exit;
        let Some(story) = &mut self.story else { return Ok(()) };
        let mut lines = story.ended(exit, &decisions);
        lines.extend(story.summary());
        self.print(&lines)
    }
}

/// Writes to stdout what it takes within [`PATIENCE`].
fn put(mut bytes: &[u8]) -> io::Result<()> {
    let stdout = rustix::stdio::stdout();
    while !bytes.is_empty() {
        let patience = Timespec { tv_sec: PATIENCE.as_secs().try_into().unwrap_or(1), tv_nsec: 0 };
        let mut fds = [PollFd::new(&stdout, PollFlags::OUT)];
        match rustix::event::poll(&mut fds, Some(&patience)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match rustix::io::write(stdout, &bytes[..bytes.len().min(PIECE_BYTES)]) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
