//! Requests of protocols that have no sockets of their own, each waiting for its answer.
//!
//! In: whom to ask, how often and how. Out: how each ended. One connected socket is used for each
//! target, so that the kernel tells it what ICMP says; every request to a target is of the same
//! pair, but each SCTP association has a port of its own.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::chunk::{self, Chunk};
use super::{is_refusal, length, socket};
use crate::task::{Counts, Exchange, Speech};

/// Where the source ports of associations begin, and how many processes get ports of their own.
const FIRST_PORT: u32 = 20_000;
const PROCESSES: u32 = 2_500;
const ASSOCIATIONS_MAX: u32 = 16;

pub(super) fn perform(task: &Exchange) -> anyhow::Result<Counts> {
    if task.speech == Speech::Ping {
        // Nobody may use ping sockets in a new namespace.
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").context("ping sockets")?;
    }
    let mut counts = Counts::default();
    let mut port = FIRST_PORT + std::process::id() % PROCESSES * ASSOCIATIONS_MAX;
    for &target in &task.targets {
        let socket = socket::of(task.speech, target.ip())?;
        socket.connect(socket::without_port(target)).with_context(|| target.to_string())?;
        let mut line = Line { socket, target, timeout: Duration::from_millis(task.timeout_ms) };
        for number in 0..task.count {
            counts.attempts += 1;
            port += 1;
            let sequence = u16::try_from(number).unwrap_or(u16::MAX);
            match line.exchange(task.speech, u16::try_from(port)?, sequence, &mut counts) {
                Ok(()) => counts.answered += 1,
                Err(error) if is_refusal(error.kind()) => counts.refused += 1,
                Err(_) => counts.unanswered += 1,
            }
        }
        counts.pairs += if task.speech == Speech::Sctp { task.count } else { 1 };
    }
    Ok(counts)
}

/// A connected socket.
struct Line {
    socket: UdpSocket,
    target: SocketAddr,
    timeout: Duration,
}

impl Line {
    fn exchange(
        &mut self,
        speech: Speech,
        port: u16,
        sequence: u16,
        counts: &mut Counts,
    ) -> Result<(), Error> {
        match speech {
            Speech::Echo | Speech::Ping => {
                let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or(0);
                let request = chunk::echo_request(self.target, identifier, sequence);
                self.send(&request, counts)?;
                let has_header = speech == Speech::Echo && self.target.is_ipv4();
                self.receive(counts, has_header, |bytes| {
                    chunk::echo_reply(bytes).filter(|&answered| answered == sequence)
                })?;
            }
            Speech::Sctp => self.associate(port, counts)?,
            Speech::Other(_) => {
                self.send(chunk::QUESTION, counts)?;
                self.receive(counts, self.target.is_ipv4(), |_| Some(()))?;
            }
        }
        Ok(())
    }

    /// The handshake, one piece of data, and no end: an abort is how it is taken down.
    fn associate(&mut self, port: u16, counts: &mut Counts) -> Result<(), Error> {
        let target = self.target.port();
        let steps = [
            (chunk::INIT, chunk::INIT_ACK),
            (chunk::COOKIE_ECHO, chunk::COOKIE_ACK),
            (chunk::DATA, chunk::SACK),
        ];
        for (kind, wanted) in steps {
            self.send(&Chunk { source: port, target, kind }.bytes(), counts)?;
            let answer = self.receive(counts, self.target.is_ipv4(), |bytes| {
                Chunk::read(bytes).filter(|answer| answer.target == port)
            })?;
            if answer.kind != wanted {
                return Err(ErrorKind::ConnectionRefused.into());
            }
        }
        self.send(&Chunk { source: port, target, kind: chunk::ABORT }.bytes(), counts)
    }

    fn send(&self, bytes: &[u8], counts: &mut Counts) -> Result<(), Error> {
        let sent = self.socket.send(bytes)?;
        counts.sent_bytes += length(sent);
        Ok(())
    }

    /// The first packet that this says is the answer.
    fn receive<T>(
        &self,
        counts: &mut Counts,
        has_header: bool,
        answer: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Error> {
        let since = Instant::now();
        let mut buffer = [0; 2048];
        loop {
            let left = self.timeout.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            let bytes = self.socket.recv(&mut buffer)?;
            let bytes = chunk::payload(&buffer[..bytes], has_header);
            if let Some(answer) = answer(bytes) {
                counts.received_bytes += length(bytes.len());
                return Ok(answer);
            }
        }
    }
}
