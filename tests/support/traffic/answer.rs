//! Servers of protocols that have no sockets of their own.
//!
//! In: the protocol and how to behave. Out: what arrived and what was sent back. One raw socket for
//! each address family; it never speaks first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::chunk::{self, Chunk};
use super::{length, say, socket, until_stdin_ends};
use crate::task::{Answer, Counts, Line, Manner, Speech};

pub(super) fn perform(task: Answer) -> anyhow::Result<Counts> {
    let counts = Arc::new(Mutex::new(Counts::default()));
    for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        let socket = socket::of(task.speech, any)?;
        let counts = Arc::clone(&counts);
        thread::spawn(move || serve(&socket, any.is_ipv4(), task, &counts));
    }
    say(&Line::Ready)?;
    until_stdin_ends();
    Ok(*counts.lock().unwrap_or_else(PoisonError::into_inner))
}

fn serve(socket: &UdpSocket, has_header: bool, task: Answer, counts: &Mutex<Counts>) {
    let mut buffer = [0; 2048];
    loop {
        // A refusal of an earlier answer is told on the next receive; it says nothing about this.
        let Ok((bytes, from)) = socket.recv_from(&mut buffer) else { continue };
        let request = chunk::payload(&buffer[..bytes], has_header);
        let answer = answer(task, request);
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.attempts += 1;
        counts.received_bytes += length(request.len());
        if let Some(answer) = answer {
            counts.answered += 1;
            counts.sent_bytes += length(answer.len());
            drop(counts);
            let _ = socket.send_to(&answer, without_port(from));
        }
    }
}

fn without_port(from: SocketAddr) -> SocketAddr {
    socket::without_port(from)
}

fn answer(task: Answer, request: &[u8]) -> Option<Vec<u8>> {
    match (task.speech, task.manner) {
        (_, Manner::IsSilent) => None,
        (Speech::Sctp, manner) => {
            let request = Chunk::read(request)?;
            let kind = match (manner, request.kind) {
                (Manner::Refuses, chunk::INIT) => chunk::ABORT,
                (_, chunk::INIT) => chunk::INIT_ACK,
                (_, chunk::COOKIE_ECHO) => chunk::COOKIE_ACK,
                (_, chunk::DATA) => chunk::SACK,
                _ => return None,
            };
            Some(request.back(kind).bytes())
        }
        // Not to answers: there may be several servers.
        _ => (request == chunk::QUESTION).then(|| b"answer".to_vec()),
    }
}
