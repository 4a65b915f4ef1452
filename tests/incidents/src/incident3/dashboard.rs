//! The dashboard: [`RATE`] events a second, serialised once into a WebSocket text frame of about 1 KB, to whoever connects.
//!
//! With `--bound BYTES` they go through `plimsoll::broadcast`. Without, as published before the bound: each client has a buffer of its own that
//! takes whatever its socket does not. The handshake is a request and `101`, without the key's digest; frames are RFC 6455's.
//! One line of figures to stdout each 100 ms: `removed N`. Ends after `--seconds`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::broadcast::{Bounds, Broadcast, Ended, Subscriber};
use plimsoll::units::parse_size;
use plimsoll_incidents::stalled::{RATE, SEND_BUFFER_BYTES, close_frame, event_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long a removed client has to read the rest of its frame and the close frame.
const CLOSE_TIME: Duration = Duration::from_secs(10);
/// A client's own buffer, without the bound: frames, each with its own copy.
type Buffers = Arc<Mutex<Vec<Arc<Buffer>>>>;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// What a client may be behind: the one flag that the control does not have
    #[arg(long)]
    bound: Option<String>,
    /// It ends after so long
    #[arg(long)]
    seconds: u64,
}

/// What a socket did not take yet.
#[derive(Default)]
struct Buffer {
    frames: Mutex<VecDeque<Vec<u8>>>,
    came: Notify,
}

pub(crate) fn main(plan: &Plan) -> ExitCode {
    let bound = plan.bound.as_deref().map(parse_size).transpose();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let served = match (bound, runtime) {
        (Ok(bound), Ok(runtime)) => runtime.block_on(serve(bound, Duration::from_secs(plan.seconds))),
        (Err(error), _) => Err(std::io::Error::other(error)),
        (_, Err(error)) => Err(error),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(bound: Option<u64>, lasts: Duration) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let listener = socket.listen(1024)?;
    println!("listening {}", listener.local_addr()?);
    let live = bound.map(|behind_bytes| Broadcast::new(Bounds { behind_bytes, ..Bounds::default() }));
    let buffers = Buffers::default();
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await?;
            match live.as_ref().map(Broadcast::subscribe) {
                Some(Ok(subscriber)) => drop(tokio::spawn(converse(stream, subscriber))),
                // Not let in: the close frame, if it can be had at once.
                Some(Err(error)) => drop(stream.try_write(&close_frame(error.close_code()))),
                None => {
                    let buffer = Arc::<Buffer>::default();
                    buffers.lock().push(Arc::clone(&buffer));
                    tokio::spawn(converse_unbounded(stream, buffer));
                }
            }
        }
    };
    let publish = async {
        let (mut tick, mut number) = (interval(Duration::from_secs(1) / RATE), 0u64);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tick.tick().await;
            let frame = event_frame(number);
            number += 1;
            match &live {
                // Nothing is too large here, and the sum is far away: a refusal would show as a gap.
                Some(live) => drop(live.publish(Arc::<[u8]>::from(frame))),
                None => buffers.lock().iter().for_each(|buffer| {
                    buffer.frames.lock().push_back(frame.clone());
                    buffer.came.notify_one();
                }),
            }
            if number.is_multiple_of(u64::from(RATE) / 10)
                && let Some(live) = &live
            {
                println!("removed {}", live.stats().removed_total());
            }
        }
    };
    tokio::select! {
        failed = accept => failed,
        () = publish => Ok(()),
        () = tokio::time::sleep(lasts) => Ok(()),
    }
}

/// The request, whatever it asks for, and the answer to it.
async fn shake_hands(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = [0; 1024];
    let mut length = 0;
    while !head[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[length..]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
    }
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n").await
}

/// One client: batches from the ring, until it is gone, or removed for being slow.
async fn converse(mut stream: TcpStream, mut subscriber: Subscriber<Arc<[u8]>>) -> std::io::Result<()> {
    shake_hands(&mut stream).await?;
    let mut removal = subscriber.removal();
    let (mut rest, code) = 'connection: loop {
        let batch = match subscriber.next().await {
            Ok(batch) => batch,
            Err(ended) => break (Vec::new(), ended.close_code()),
        };
        for frame in &batch {
            let mut written = 0;
            while written < frame.len() {
                tokio::select! {
                    wrote = stream.write(&frame[written..]) => written += wrote?,
                    removed = &mut removal => {
                        let code = removed.map_or(Ended::Closed, Ended::Removed).close_code();
                        // A frame that was begun is finished; nothing else is kept.
                        let rest = if written > 0 { frame[written..].to_vec() } else { Vec::new() };
                        break 'connection (rest, code);
                    }
                }
            }
        }
    };
    drop((subscriber, removal));
    rest.extend_from_slice(&close_frame(code));
    // It may never read: then its time is over.
    timeout(CLOSE_TIME, stream.write_all(&rest)).await.unwrap_or(Ok(()))
}

async fn converse_unbounded(mut stream: TcpStream, buffer: Arc<Buffer>) -> std::io::Result<()> {
    shake_hands(&mut stream).await?;
    loop {
        let next = buffer.frames.lock().pop_front();
        match next {
            Some(frame) => stream.write_all(&frame).await?,
            None => buffer.came.notified().await,
        }
    }
}
