//! The server of the overload and of incident 2's second half: axum on loopback, and with `--admission` a gate in front of it: `pool` is the
//! heavy pool (2 × cores) and a cap of [`PER_PEER`] for each peer, `limit` a limit that finds itself.
//!
//! | path | what it costs |
//! |---|---|
//! | `/health` | nothing: a probe |
//! | `/item` | a query of [`QUERY`] on one of [`CONNECTIONS`] connections to a database, which is not cancelled when the asker goes away: so the capacity is 300 a second, whatever the machine |
//! | `/neighbour` | what a write costs that is replicated: [`REPLICATION`] of waiting and no more CPU than HTTP |
//! | `/read` | O(N): the whole stream is decoded for the last entry; [`READ_CPU`] of CPU on a worker of the runtime, as it happened |
//! | `/counters` | nothing: what the gate counted |
//!
//! Without the flag the same paths run with nothing in front: that is the control. Ends after `--seconds`, so that nothing is left behind.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use plimsoll::admission::{
    Adapt, AdmissionLayer, Gate, Head, Http, Identity, Kind, Lane, LevelCell, Peer, Settings, Slots,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a query takes.
const QUERY: Duration = Duration::from_millis(20);
/// Connections to the database.
const CONNECTIONS: usize = 6;
/// What a neighbour's write waits for.
const REPLICATION: Duration = Duration::from_millis(20);
/// What a read of the whole stream costs.
const READ_CPU: Duration = Duration::from_millis(30);
/// Workers of the runtime. More than cores: the kernel shares these among them, so that one long poll does not hold up the others.
const WORKERS: usize = 8;
/// Requests of one peer at one time.
const PER_PEER: u32 = 8;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Puts the gate in front: the one flag that the control does not have
    #[arg(long)]
    admission: Option<Front>,
    /// It ends after so long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Front {
    Pool,
    Limit,
}

impl Front {
    fn settings(self) -> Settings {
        match self {
            Front::Pool => Settings { per_peer: Some(PER_PEER), ..Settings::default() },
            Front::Limit => {
                let light = Lane { slots: Slots::Adaptive(Adapt::default()), waiting: 0, wait: Duration::ZERO };
                Settings { light, ..Settings::default() }
            }
        }
    }
}

pub(crate) fn main(plan: &Plan) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let served = runtime.and_then(|runtime| {
        let result = runtime.block_on(serve(plan));
        runtime.shutdown_background();
        result
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(plan: &Plan) -> std::io::Result<()> {
    let database = Arc::new(Semaphore::new(CONNECTIONS));
    let stream: Arc<[u8]> = (0..4u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let routes = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/item", get(move || query(Arc::clone(&database))))
        .route("/neighbour", get(|| async { tokio::time::sleep(REPLICATION).await }))
        .route("/read", get(move || std::future::ready(read_all(&stream))));
    let routes = if let Some(front) = plan.admission {
        let gate = Gate::new(front.settings(), LevelCell::new());
        let counters = gate.clone();
        let http = Http::default().classify(classify).identity(Identity::by(address));
        let counted = get(move || std::future::ready(format!("{:?} {:?}", counters.stats(), counters.top_peers(3))));
        routes.route("/counters", counted).layer(AdmissionLayer::http(gate, http))
    } else {
        routes
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let served = axum::serve(listener, routes.into_make_service_with_connect_info::<SocketAddr>());
    // The end of its time is no failure.
    tokio::time::timeout(Duration::from_secs(plan.seconds), served.into_future()).await.unwrap_or(Ok(()))
}

fn classify(head: &Head<'_>) -> Kind {
    match head.uri.path() {
        "/health" | "/counters" => Kind::EXEMPT,
        "/read" => Kind::HEAVY,
        _ => Kind::LIGHT,
    }
}

fn address(head: &Head<'_>) -> Option<Peer> {
    head.extensions.get().map(|ConnectInfo(address): &ConnectInfo<SocketAddr>| Peer::from(*address))
}

/// One query: in a task of its own, which goes on when nobody wants the answer any more.
async fn query(database: Arc<Semaphore>) -> &'static str {
    let work = tokio::spawn(async move {
        let connection = database.acquire().await;
        tokio::time::sleep(QUERY).await;
        drop(connection);
    });
    work.await.map_or("failed", |()| "an item")
}

/// Decodes the whole stream, again and again until it has cost [`READ_CPU`]: the same on every machine and build.
fn read_all(stream: &[u8]) -> String {
    let began = thread_cpu();
    let mut sum = 0u64;
    while thread_cpu() - began < READ_CPU {
        sum = stream[..64 << 10].iter().fold(sum, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
    }
    format!("the last entry: {sum:x}")
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}
