//! Answers: a fixed answer for each request on TCP, the datagram itself on UDP.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;

/// Bytes of a request and of its answer.
pub(super) const BYTES: usize = 64;
/// Threads that accept on one port, so that one slow client holds up nobody.
const THREADS: usize = 4;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4_096;

/// Every port is open when this returns; threads serve until the process ends.
pub(super) fn start(ports: &[u16]) -> anyhow::Result<()> {
    for &port in ports {
        let shown = || format!("cannot open port {port}");
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(shown)?;
        rustix::net::listen(&listener, BACKLOG).with_context(shown)?;
        let listener = Arc::new(listener);
        for _ in 0..THREADS {
            let listener = Arc::clone(&listener);
            thread::spawn(move || accept(&listener));
        }
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).with_context(shown)?;
        thread::spawn(move || echo(&socket));
    }
    Ok(())
}

fn accept(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        // A client that went away was counted by itself.
        let _ = answer(stream);
    }
}

/// Until the client closes.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; BYTES];
    loop {
        let mut length = 0;
        while length < BYTES {
            match stream.read(&mut request[length..])? {
                0 => return Ok(()),
                bytes => length += bytes,
            }
        }
        stream.write_all(&request)?;
    }
}

fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 2_048];
    loop {
        // A refusal of an earlier answer is told on the next receive; it says nothing about this.
        let Ok((bytes, from)) = socket.recv_from(&mut buffer) else { continue };
        let _ = socket.send_to(&buffer[..bytes], from);
    }
}
