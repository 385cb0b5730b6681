//! Datagrams that nobody need answer, each from a socket of its own.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};

use super::{Done, now_ns};
use crate::outcome::number;
use crate::place::allow_files;

/// Ports that the sockets take in turn; below are those that need privileges.
const PORT_FIRST: u64 = 1_024;
const PORTS: u64 = 64_000;
/// The first port that is asked; the next one when all own ports were used.
const TARGET_PORT_FIRST: u64 = 20_000;
/// Threads that make sockets, one for each core of a small machine.
const THREADS: u64 = 2;
/// How many are made without a look at the clock.
const AT_ONCE: u64 = 16;

/// The n-th pair of ports differs from every other one.
fn ports(tuple: u64) -> anyhow::Result<(u16, u16)> {
    let own = PORT_FIRST + tuple % PORTS;
    let target = TARGET_PORT_FIRST + tuple / PORTS;
    Ok((own.try_into()?, target.try_into()?))
}

pub(super) fn tuples(
    target: IpAddr,
    first: u64,
    per_second: u64,
    count: u64,
) -> anyhow::Result<Done> {
    let began_ns = now_ns();
    let began = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    for (turn, tuple) in (first + thread..first + count)
                        .step_by(usize::try_from(THREADS)?)
                        .enumerate()
                    {
                        let turn = u64::try_from(turn)?;
                        if turn.is_multiple_of(AT_ONCE) {
                            let due = number(turn * THREADS) / number(per_second);
                            let due = began + Duration::from_secs_f64(due);
                            thread::sleep(due.saturating_duration_since(Instant::now()));
                        }
                        let (own, port) = ports(tuple)?;
                        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, own))
                            .with_context(|| format!("own port {own}"))?;
                        socket.connect((target, port))?;
                        socket.send(b"x")?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a generator panicked"))?)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Done { count, seconds, began_ns, ..Done::default() })
}

/// The sockets come out too: who drops them ends their pairs.
pub(super) fn one_each(
    target: IpAddr,
    ports: Range<u16>,
) -> anyhow::Result<(Done, Vec<UdpSocket>)> {
    allow_files();
    let mut sockets = Vec::new();
    for port in ports {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((target, port))?;
        sockets.push(socket);
    }
    let began_ns = now_ns();
    let began = Instant::now();
    for socket in &sockets {
        socket.send(b"x")?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let count = u64::try_from(sockets.len())?;
    Ok((Done { count, seconds, began_ns, ..Done::default() }, sockets))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{PORTS, ports};

    #[test]
    fn no_two_tuples_are_the_same() {
        let all: BTreeSet<_> = (0..3 * PORTS).map(|tuple| ports(tuple).ok()).collect();
        assert_eq!(all.len() as u64, 3 * PORTS);
        assert!(!all.contains(&None));
    }
}
