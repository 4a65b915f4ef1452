//! Too much for a server, twice over: twice the load it can do, and one client whose reads cost O(N). Each is run with the gate and,
//! the same binary with one flag less, without; measured from outside and judged here.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock;
use crate::http_load::{Sample, Seen, client, closed_loop, open_loop, seen};
use crate::launch::{self, Running};
use crate::product;

/// Who asks waits for an answer for so long.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// What a measurement begins with and does not count.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// The abuser's connections, and how often each asks: as it happened.
pub const ABUSER_CONNECTIONS: u32 = 37;
const ABUSER_PACE: Duration = Duration::from_millis(90);
const ABUSER_PATIENCE: Duration = Duration::from_secs(10);
const NEIGHBOURS: u32 = 6;
const NEIGHBOUR_PACE: Duration = Duration::from_millis(50);
const PROBE_PACE: Duration = Duration::from_millis(100);

/// The server, until it is dropped.
struct Server {
    address: SocketAddr,
    _running: Running,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(admission: Option<&str>) -> Result<Server, String> {
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let mut command = launch::command(&product::built("plimsoll-incident-2")?, ["http", "--seconds", "120"], None);
        if let Some(admission) = admission {
            command.args(["--admission", admission]);
        }
        let running = Running::start(command, dir.path())?;
        let said = || running.stdout().trim().parse().ok();
        let address = clock::wait_for(Duration::from_secs(20), Duration::from_millis(10), said);
        let address = address.ok_or_else(|| format!("it does not listen: {}", running.stderr()))?;
        Ok(Server { address, _running: running, _dir: dir })
    }
}

fn run<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| format!("no runtime: {error}"))?.block_on(tokio::task::LocalSet::new().run_until(work)))
}

/// `count` closed loops at once, each from its own client address from `first` on, or all from that one.
async fn loops(
    (server, path): (SocketAddr, &'static str),
    (first, count, own_address): (u32, u32, bool),
    (pace, patience): (Duration, Duration),
    lasts: Duration,
) -> Vec<Sample> {
    let one = |n: u32| {
        let from = client(if own_address { first + n } else { first });
        tokio::task::spawn_local(async move { closed_loop(server, from, path, (pace, patience), lasts).await })
    };
    let mut all = Vec::new();
    for task in (0..count).map(one).collect::<Vec<_>>() {
        all.extend(task.await.unwrap_or_default());
    }
    all
}

/// The server under twice its load.
#[derive(Clone, Copy, Debug)]
pub struct Overload {
    /// One client after the other, without the gate.
    pub unloaded: Seen,
    /// As many clients as it can serve at once, without the gate.
    pub peak: Seen,
    /// Requests at twice the peak's rate.
    pub doubled: Seen,
    /// Probes during that.
    pub probes: Seen,
}

/// Measures the unloaded latency and the peak of the bare server, then twice that load with the gate (or without: the control).
///
/// # Errors
/// A sentence that says why it cannot be run here.
pub fn overload(protected: bool, lasts: Duration) -> Result<Overload, String> {
    let bare = Server::start(None)?;
    let calm = Duration::from_secs(3);
    let (unloaded, peak) = run(async {
        let one = loops((bare.address, "/item"), (1, 1, true), (Duration::ZERO, PATIENCE), calm).await;
        let many = loops((bare.address, "/item"), (1, 12, true), (Duration::ZERO, PATIENCE), calm).await;
        (seen(&one, Duration::from_millis(500), calm), seen(&many, Duration::from_millis(500), calm))
    })?;
    drop(bare);
    let server = Server::start(protected.then_some("limit"))?;
    let (doubled, probes) = run(async {
        let load = open_loop(server.address, "/item", 2.0 * peak.good_per_second, PATIENCE, lasts);
        let probes = loops((server.address, "/health"), (1 << 20, 1, true), (PROBE_PACE, PATIENCE), lasts);
        tokio::join!(load, probes)
    })?;
    Ok(Overload {
        unloaded,
        peak,
        doubled: seen(&doubled, WARM_UP, lasts),
        probes: seen(&probes, Duration::ZERO, lasts),
    })
}

impl Overload {
    /// Whether the gate held: goodput at least 90 % of the peak, the 99th percentile of what was let in at most twice the unloaded one,
    /// every probe answered.
    ///
    /// # Errors
    /// The first thing that does not hold, with its figures.
    pub fn held(&self) -> Result<(), String> {
        let (goodput, peak) = (self.doubled.good_per_second, self.peak.good_per_second);
        if goodput < 0.9 * peak {
            return Err(format!("goodput {goodput:.0} a second of a peak of {peak:.0}"));
        }
        let (p99, unloaded) = (self.doubled.ms[1], self.unloaded.ms[1]);
        if p99 > 2.0 * unloaded {
            return Err(format!("p99 {p99:.1} ms, unloaded {unloaded:.1} ms"));
        }
        answered(&self.probes)
    }

    /// Whether the control collapsed: less than half of the peak is answered in time, although it works all the time.
    ///
    /// # Errors
    /// What happened instead.
    pub fn collapsed(&self) -> Result<(), String> {
        let (goodput, peak) = (self.doubled.good_per_second, self.peak.good_per_second);
        if goodput < 0.5 * peak { Ok(()) } else { Err(format!("goodput {goodput:.0} a second of a peak of {peak:.0}")) }
    }
}

fn answered(probes: &Seen) -> Result<(), String> {
    if probes.sent > 0 && probes.good == probes.sent {
        return Ok(());
    }
    Err(format!("{} of {} probes answered", probes.good, probes.sent))
}

/// Neighbours and probes beside one client with many connections whose reads cost O(N).
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// The neighbours before the abuser came.
    pub alone: Seen,
    /// The neighbours beside it.
    pub beside: Seen,
    /// Probes beside it.
    pub probes: Seen,
    /// The abuser's own.
    pub abuser: Seen,
}

/// Measures the neighbours alone, then beside the abuser.
///
/// # Errors
/// A sentence that says why it cannot be run here.
pub fn reads(protected: bool, lasts: Duration) -> Result<Reads, String> {
    let server = Server::start(protected.then_some("pool"))?;
    let neighbours =
        || loops((server.address, "/neighbour"), (1_000, NEIGHBOURS, true), (NEIGHBOUR_PACE, PATIENCE), lasts);
    run(async {
        let alone = neighbours().await;
        let abuser =
            loops((server.address, "/read"), (9, ABUSER_CONNECTIONS, false), (ABUSER_PACE, ABUSER_PATIENCE), lasts);
        let probes = loops((server.address, "/health"), (2_000, 1, true), (PROBE_PACE, PATIENCE), lasts);
        let (beside, probes, abuser) = tokio::join!(neighbours(), probes, abuser);
        let of = |samples: &[Sample]| seen(samples, WARM_UP.min(lasts / 4), lasts);
        Reads { alone: of(&alone), beside: of(&beside), probes: of(&probes), abuser: of(&abuser) }
    })
}

impl Reads {
    /// Whether the gate held: all neighbours answered, their 99th percentile at most twice what it was without the abuser, every probe
    /// answered, and the abuser was still served.
    ///
    /// # Errors
    /// The first thing that does not hold, with its figures.
    pub fn held(&self) -> Result<(), String> {
        let (p99, alone) = (self.beside.ms[1], self.alone.ms[1]);
        if self.beside.good != self.beside.sent {
            return Err(format!("{} of {} of the neighbours' requests answered", self.beside.good, self.beside.sent));
        }
        if p99 > 2.0 * alone {
            return Err(format!("the neighbours' p99 is {p99:.1} ms, without the abuser {alone:.1} ms"));
        }
        if self.abuser.good == 0 || self.abuser.refused == 0 {
            return Err(format!("the abuser: {:?}", self.abuser));
        }
        answered(&self.probes)
    }

    /// Whether the control failed: the neighbours' 99th percentile is above five times what it was, and probes wait as long.
    ///
    /// # Errors
    /// What happened instead.
    pub fn starved(&self) -> Result<(), String> {
        let (p99, probes, alone) = (self.beside.ms[1], self.probes.ms[1], self.alone.ms[1]);
        let starved = p99 > 5.0 * alone && probes > 5.0 * alone;
        if starved {
            Ok(())
        } else {
            Err(format!("neighbours {p99:.1} ms, probes {probes:.1} ms, alone {alone:.1} ms"))
        }
    }
}
