//! A connection that is there for longer than whoever watches it.
//!
//! In: a target. Out: what was exchanged, before and after the pause. It is ready once the first
//! exchange is over, and goes on when its stdin ends.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

use super::{length, say, socket, until_stdin_ends};
use crate::task::{Counts, HeldLine, Hold, Line};

const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn perform(task: &Hold) -> anyhow::Result<Counts> {
    let mut counts = Counts { attempts: 1, answered: 1, pairs: 1, ..Counts::default() };
    match task.line {
        HeldLine::Tcp => connection(task, &mut counts)?,
        HeldLine::UdpConnected | HeldLine::UdpUnconnected => datagrams(task, &mut counts)?,
    }
    Ok(counts)
}

/// One byte before the pause and one after it; the server answers when it has read everything.
fn connection(task: &Hold, counts: &mut Counts) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&task.target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"1")?;
    say(&Line::Ready)?;
    until_stdin_ends();
    stream.write_all(b"2")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    counts.sent_bytes += 2;
    counts.received_bytes += length(answer.len());
    Ok(())
}

fn datagrams(task: &Hold, counts: &mut Counts) -> anyhow::Result<()> {
    let socket = socket::datagram(task.target, false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    if task.line == HeldLine::UdpConnected {
        socket.connect(task.target)?;
    }
    for number in 0..=task.count {
        if number == 1 {
            say(&Line::Ready)?;
            until_stdin_ends();
        }
        let sent = match task.line {
            HeldLine::UdpConnected => socket.send(b"question")?,
            HeldLine::Tcp | HeldLine::UdpUnconnected => socket.send_to(b"question", task.target)?,
        };
        counts.sent_bytes += length(sent);
        let received = socket.recv(&mut [0; 64]).context("no answer")?;
        counts.received_bytes += length(received);
    }
    Ok(())
}
