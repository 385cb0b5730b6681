//! Questions to a DNS server, one after the other.
//!
//! In: a name and whom to ask. Out: how many answers came that hold an address. It never asks
//! again.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, TYPE};

use super::length;
use crate::task::{Counts, Resolve};

const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn perform(task: &Resolve) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let mut packet = Packet::new_query(1);
    let kind = if task.ipv6 { TYPE::AAAA } else { TYPE::A };
    let name = Name::new(&task.name).context("no name")?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    let question = packet.build_bytes_vec().context("the question")?;
    let mut asker = Asker::open(task)?;
    for _ in 0..task.count {
        counts.attempts += 1;
        counts.sent_bytes += length(question.len());
        match asker.ask(&question) {
            Ok(answer) => {
                counts.received_bytes += length(answer.len());
                let answer = Packet::parse(&answer).context("the answer")?;
                let is_address = |data: &RData<'_>| matches!(data, RData::A(_) | RData::AAAA(_));
                let found = answer.answers.iter().any(|record| is_address(&record.rdata));
                counts.answered += u64::from(found);
                counts.refused += u64::from(!found);
            }
            Err(_) => counts.unanswered += 1,
        }
    }
    Ok(counts)
}

enum Asker {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Asker {
    fn open(task: &Resolve) -> anyhow::Result<Self> {
        if task.tcp {
            let stream = TcpStream::connect(task.server).context("cannot connect")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            return Ok(Self::Tcp(stream));
        }
        let any: SocketAddr = match task.server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(task.server).context("no way to the server")?;
        Ok(Self::Udp(socket))
    }

    fn ask(&mut self, question: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                socket.send(question)?;
                let mut buffer = [0; 4096];
                let bytes = socket.recv(&mut buffer)?;
                Ok(buffer[..bytes].to_vec())
            }
            Self::Tcp(stream) => {
                let prefix = u16::try_from(question.len()).map_err(std::io::Error::other)?;
                stream.write_all(&[&prefix.to_be_bytes(), question].concat())?;
                let mut prefix = [0; 2];
                stream.read_exact(&mut prefix)?;
                let mut answer = vec![0; usize::from(u16::from_be_bytes(prefix))];
                stream.read_exact(&mut answer)?;
                Ok(answer)
            }
        }
    }
}
