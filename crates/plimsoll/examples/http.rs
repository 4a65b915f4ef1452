//! An HTTP service (axum) that keeps items in memory, refuses early, drains under memory pressure and exits 2:
//!
//! ```text
//! PLIMSOLL_SHUTDOWN_THRESHOLD=128M cargo run -p plimsoll --features tokio --example http -- 127.0.0.1:8080 items.log
//! curl --data-binary @file http://127.0.0.1:8080/items ; curl http://127.0.0.1:8080/health
//! ```
//!
//! Every item is charged to a ledger account before it is kept and is on disk before it is acknowledged. At 88 % of the
//! threshold new items are refused with 503 and `Retry-After`; at the threshold what is in flight is finished and the listener
//! closes, within the drain deadline of 5 s. SIGTERM takes the same path and exits 0. Under `plimsoll run`, or systemd with
//! `Type=notify`, it says when it is ready and when it stops, and reports what it holds.

use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::{get, post};
use plimsoll::drain::Drain;
use plimsoll::last_words::LastWords;
use plimsoll::reclaim::ledger::{Account, Charge, Ledger};
use plimsoll::report::Report;
use plimsoll::report::notify::Notify;
use plimsoll::watchdog::{Config, Soft, Started, Watchdog};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the service keeps, with what it was charged for it.
#[derive(Default)]
struct Store {
    items: Vec<(Bytes, Charge<'static>)>,
    log: Option<File>,
}

struct Service {
    store: Mutex<Store>,
    account: Account,
    busy: AtomicBool,
    drain: Drain,
}

type Shared = State<Arc<Service>>;
type Answer = (StatusCode, [(HeaderName, &'static str); 1], &'static str);

fn answer(status: StatusCode, text: &'static str) -> Answer {
    (status, [(header::RETRY_AFTER, if status == StatusCode::SERVICE_UNAVAILABLE { "2" } else { "0" })], text)
}

/// Keeps an item: refused early, charged before it is kept, synced before it is acknowledged.
async fn keep(State(service): Shared, item: Bytes) -> Answer {
    let Some(_hold) = service.drain.hold() else { return answer(StatusCode::SERVICE_UNAVAILABLE, "leaving\n") };
    if service.busy.load(Ordering::Relaxed) {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "short of memory\n");
    }
    let Ok(charge) = service.account.try_charge(item.len() as u64) else {
        return answer(StatusCode::SERVICE_UNAVAILABLE, "over the cap\n");
    };
    let mut store = service.store.lock().await;
    let line = format!("{} bytes\n", item.len());
    let written = store.log.as_mut().map(|log| log.write_all(line.as_bytes()).and_then(|()| log.sync_data()));
    match written {
        Some(Err(_)) => answer(StatusCode::INTERNAL_SERVER_ERROR, "not written\n"),
        _ => {
            store.items.push((item, charge));
            answer(StatusCode::CREATED, "kept\n")
        }
    }
}

async fn health(State(service): Shared) -> Answer {
    match service.drain.is_begun() {
        true => answer(StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
        false => answer(StatusCode::OK, "ok\n"),
    }
}

fn main() -> ExitCode {
    let (drain, ledger) = (Drain::new(), Ledger::new());
    let service = Arc::new(Service {
        store: Mutex::default(),
        account: ledger.account("items").expect("the first account"),
        busy: AtomicBool::new(false),
        drain: drain.clone(),
    });
    let (config, problems) = Config::from_env();
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    let config = config.map(|mut config| {
        config.drain_deadline = Duration::from_secs(5);
        config
    });
    let soft = Arc::clone(&service);
    let report = Report::from_env().ledger(&ledger).start().expect("a thread");
    let watchdog = Watchdog::new(config)
        .drain(&drain)
        .report(&report)
        .on_soft(move |stage| soft.busy.store(matches!(stage, Soft::Entered(_)), Ordering::Relaxed))
        .last_words(LastWords::new().stderr().ledger(&ledger));
    match watchdog.start() {
        Ok(Started::Now(effective)) => eprintln!("memory watchdog: {effective}"),
        Ok(_) => eprintln!("memory watchdog: off"),
        Err(error) => eprintln!("memory watchdog: {error}"),
    }
    let outcome = watchdog.outcome_by(run(&service), |error| plimsoll::drain::is_cancelled(error.as_ref()));
    outcome.error.iter().for_each(|error| eprintln!("error: {error}"));
    outcome.exit_code()
}

fn run(service: &Arc<Service>) -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let log = args.next().map(|path| File::options().create(true).append(true).open(path)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        service.store.lock().await.log = log;
        let listener = TcpListener::bind(&address).await?;
        println!("listening on {}", listener.local_addr()?);
        let notify = Notify::from_env();
        notify.ready();
        let mut term = signal(SignalKind::terminate())?;
        let drain = service.drain.clone();
        let stopper = tokio::spawn(async move {
            term.recv().await;
            drain.begin();
        });
        let routes = Router::new().route("/items", post(keep)).route("/health", get(health));
        let drain = service.drain.clone();
        axum::serve(listener, routes.with_state(Arc::clone(service)))
            .with_graceful_shutdown(async move { drain.begun().await })
            .await?;
        notify.stopping();
        stopper.abort();
        eprintln!("drained: {:?}, {} items", service.drain.finished().await, service.store.lock().await.items.len());
        Ok(())
    })
}
