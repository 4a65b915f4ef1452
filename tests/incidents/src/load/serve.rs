//! `serve`: a small HTTP server on loopback that answers everything with 200 and logs one line a request.
//!
//! One connection at a time, at most 8 KiB of request and 2 s each. It prints `listening on 127.0.0.1:PORT` and ends on SIGTERM.

use crate::evidence::Evidence;
use crate::sys;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

/// Serve HTTP on 127.0.0.1 and log.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Serve {
    /// Port; 0: one that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Allocate this much with each request and keep it, in KiB
    #[arg(long, default_value_t = 0)]
    leak_kib: usize,
}

/// Serves until SIGTERM.
pub(crate) fn run(plan: &Serve, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, plan.port))?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let mut kept = Vec::new();
    let mut served = 0_u64;
    while sys::signal_ns() == 0 {
        let (mut peer, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            Err(error) => return Err(error),
        };
        peer.set_nonblocking(false)?;
        peer.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut request = [0; 8192];
        let length = peer.read(&mut request).unwrap_or(0);
        let head = String::from_utf8_lossy(&request[..length]);
        served += 1;
        kept.push(vec![1_u8; plan.leak_kib << 10]);
        println!("request {served}: {}", head.lines().next().unwrap_or("nothing"));
        // The peer may have gone; that is its business.
        peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n").ok();
    }
    evidence.done(0, kept.iter().map(Vec::len).sum::<usize>() as u64, &format!("\"lines\":{served}"));
    Ok(0)
}
