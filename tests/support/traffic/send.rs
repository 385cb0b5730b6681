//! UDP datagrams, each waiting for its answer.
//!
//! In: targets, how many, and from which sockets. Out: how each ended. A refusal is seen only on a
//! connected socket, as the kernel has it; on a shared one it counts as unanswered.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;

use super::{is_refusal, length, pause, socket};
use crate::task::{Counts, Send, Sockets};

pub(super) fn perform(task: &Send) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let mut sockets = Vec::new();
    for (index, target) in task.targets.iter().enumerate() {
        let like_first = |other: &SocketAddr| other.is_ipv4() == target.is_ipv4();
        let socket = match task.sockets {
            Sockets::Shared => match task.targets[..index].iter().position(like_first) {
                Some(earlier) => UdpSocket::try_clone(&sockets[earlier]).context("socket")?,
                None => open(task, *target)?,
            },
            Sockets::Connected => connected(task, *target)?,
            Sockets::PerDatagram | Sockets::Numbered(_) => open(task, *target)?,
        };
        sockets.push(socket);
    }
    if matches!(task.sockets, Sockets::Connected | Sockets::Shared) {
        counts.pairs = length(task.targets.len());
    }
    for _ in 0..task.count {
        for (target, socket) in task.targets.iter().zip(&sockets) {
            counts.attempts += 1;
            match task.sockets {
                Sockets::PerDatagram => {
                    counts.pairs += 1;
                    exchange(task, *target, &connected(task, *target)?, &mut counts);
                }
                Sockets::Numbered(first) => {
                    counts.pairs += 1;
                    let port = first + u16::try_from(counts.attempts - 1)?;
                    exchange(task, *target, &numbered(task, *target, port)?, &mut counts);
                }
                Sockets::Connected | Sockets::Shared => {
                    exchange(task, *target, socket, &mut counts);
                }
            }
            pause(task.pause_ms);
        }
    }
    Ok(counts)
}

fn exchange(task: &Send, target: SocketAddr, socket: &UdpSocket, counts: &mut Counts) {
    let datagram = vec![b'q'; task.datagram_bytes];
    let sent = match task.sockets {
        Sockets::Shared => socket.send_to(&datagram, target),
        Sockets::Connected | Sockets::PerDatagram | Sockets::Numbered(_) => socket.send(&datagram),
    };
    counts.sent_bytes += sent.as_ref().map_or(0, |&bytes| length(bytes));
    let mut buffer = [0; 65_536];
    let answer = sent.and_then(|_| {
        loop {
            let (bytes, from) = socket.recv_from(&mut buffer)?;
            // On a shared socket a late answer of another target is not this one's.
            if from == target {
                break Ok(bytes);
            }
        }
    });
    match answer {
        Ok(bytes) => {
            counts.answered += 1;
            counts.received_bytes += length(bytes);
        }
        Err(error) if is_refusal(error.kind()) => counts.refused += 1,
        Err(_) => counts.unanswered += 1,
    }
}

fn connected(task: &Send, target: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = open(task, target)?;
    socket.connect(target).with_context(|| format!("no way to {target}"))?;
    Ok(socket)
}

fn numbered(task: &Send, target: SocketAddr, port: u16) -> anyhow::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = socket::bound((any, port).into(), task.lite)?;
    socket.set_read_timeout(Some(Duration::from_millis(task.timeout_ms.max(1))))?;
    socket.connect(target).with_context(|| format!("no way to {target}"))?;
    Ok(socket)
}

fn open(task: &Send, target: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = socket::datagram(target, task.lite)?;
    socket.set_read_timeout(Some(Duration::from_millis(task.timeout_ms.max(1))))?;
    Ok(socket)
}
