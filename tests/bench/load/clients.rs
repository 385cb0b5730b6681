//! Clients that wait for their answers: at a steady rate, or as fast as these come.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use super::server::BYTES;
use super::{Closed, Done, now_ns};
use crate::outcome::number;

/// Threads that keep the rate: one slow answer holds up a quarter of it.
const THREADS: u64 = 4;
/// An answer that takes longer was lost.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn connections(
    targets: &[SocketAddr],
    per_second: u64,
    count: u64,
) -> anyhow::Result<Done> {
    let began_ns = now_ns();
    let began = Instant::now();
    let mut times = Vec::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|first| scope.spawn(move || at_rate(targets, per_second, count, first, began)))
            .collect();
        for thread in threads {
            let done = thread.join().map_err(|_| anyhow!("a client panicked"))?;
            times.extend(done?);
        }
        anyhow::Ok(())
    })?;
    Ok(Done::timed(times, began.elapsed(), began_ns))
}

/// Every `THREADS`-th connection, from this one on. Who is late begins at once.
fn at_rate(
    targets: &[SocketAddr],
    per_second: u64,
    count: u64,
    first: u64,
    began: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for turn in (first..count).step_by(usize::try_from(THREADS)?) {
        let due = began + Duration::from_secs_f64(number(turn) / number(per_second));
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let since = Instant::now();
        connection(target(targets, turn)?)?;
        times.push(since.elapsed());
    }
    Ok(times)
}

fn target(targets: &[SocketAddr], turn: u64) -> anyhow::Result<SocketAddr> {
    let index = usize::try_from(turn)? % targets.len().max(1);
    targets.get(index).copied().context("nobody to ask")
}

fn connection(target: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(target).with_context(|| target.to_string())?;
    ask(&mut stream)
}

fn ask(stream: &mut TcpStream) -> anyhow::Result<()> {
    stream.write_all(&[b'q'; BYTES]).context("a request")?;
    stream.read_exact(&mut [0; BYTES]).context("an answer")
}

pub(super) fn closed(kind: Closed, targets: &[SocketAddr], ms: u64) -> anyhow::Result<Done> {
    let time = Duration::from_millis(ms);
    let first = target(targets, 0)?;
    match kind {
        Closed::TcpRr => {
            let mut stream = TcpStream::connect(first)?;
            stream.set_nodelay(true)?;
            repeat(time, |_| ask(&mut stream))
        }
        Closed::TcpCrr => repeat(time, |turn| connection(target(targets, turn)?)),
        Closed::UdpRr => {
            let any: SocketAddr = match first {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.connect(first)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            repeat(time, |_| {
                socket.send(&[b'q'; BYTES])?;
                let bytes = socket.recv(&mut [0; BYTES]).context("no answer to a datagram")?;
                ensure!(bytes == BYTES, "an answer of {bytes} bytes");
                Ok(())
            })
        }
    }
}

fn repeat(time: Duration, mut turn: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<Done> {
    let began_ns = now_ns();
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < time {
        turn(count)?;
        count += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Done { count, seconds, began_ns, ..Done::default() })
}
