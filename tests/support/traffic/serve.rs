//! Servers on many ports, TCP and UDP.
//!
//! In: ports. Out: what arrived and what was sent back. Sockets are dual-stack, as most servers'
//! are: IPv4 peers appear as IPv4-mapped addresses. It never speaks first.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context as _;

use super::{length, say, socket, until_stdin_ends};
use crate::task::{Counts, Line, Serve};

type Shared = Arc<Mutex<Counts>>;

pub(super) fn perform(task: &Serve) -> anyhow::Result<Counts> {
    let counts = Shared::default();
    for &port in &task.tcp {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .with_context(|| format!("cannot listen on TCP port {port}"))?;
        let (counts, reply_bytes) = (Arc::clone(&counts), task.reply_bytes);
        thread::spawn(move || accept(&listener, reply_bytes, &counts));
    }
    let udp = task.udp.iter().map(|port| (port, false));
    for (&port, lite) in udp.chain(task.udplite.iter().map(|port| (port, true))) {
        let socket = socket::bound((Ipv6Addr::UNSPECIFIED, port).into(), lite)
            .with_context(|| format!("cannot open UDP port {port}"))?;
        let (counts, is_silent) = (Arc::clone(&counts), task.silent);
        thread::spawn(move || echo(&socket, is_silent, &counts));
    }
    say(&Line::Ready)?;
    until_stdin_ends();
    Ok(*counts.lock().unwrap_or_else(PoisonError::into_inner))
}

fn add(counts: &Mutex<Counts>, change: impl FnOnce(&mut Counts)) {
    change(&mut counts.lock().unwrap_or_else(PoisonError::into_inner));
}

fn accept(listener: &TcpListener, reply_bytes: usize, counts: &Shared) {
    while let Ok((stream, _)) = listener.accept() {
        add(counts, |counts| counts.attempts += 1);
        let counts = Arc::clone(counts);
        thread::spawn(move || {
            // A client that went away is one that was not answered.
            let _ = answer(stream, reply_bytes, &counts);
        });
    }
}

fn answer(mut stream: TcpStream, reply_bytes: usize, counts: &Shared) -> std::io::Result<()> {
    let mut request = Vec::new();
    stream.read_to_end(&mut request)?;
    // Counted before the client can know, so that a client that is done finds it counted.
    add(counts, |counts| {
        counts.received_bytes += length(request.len());
        counts.sent_bytes += length(reply_bytes);
        counts.answered += 1;
    });
    stream.write_all(&vec![b'a'; reply_bytes])
}

fn echo(socket: &UdpSocket, is_silent: bool, counts: &Shared) {
    let mut buffer = [0; 65_536];
    loop {
        // A refusal of an earlier answer is told on the next receive; it says nothing about this.
        let Ok((bytes, from)) = socket.recv_from(&mut buffer) else { continue };
        add(counts, |counts| {
            counts.attempts += 1;
            counts.received_bytes += length(bytes);
            if !is_silent {
                counts.answered += 1;
                counts.sent_bytes += length(bytes);
            }
        });
        if !is_silent {
            let _ = socket.send_to(&buffer[..bytes], from);
        }
    }
}
