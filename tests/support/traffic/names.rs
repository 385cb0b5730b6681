//! A DNS server, UDP and TCP.
//!
//! In: names with their addresses. Out: how many questions came and were answered. Answers over TCP
//! are sent in two halves, so that nobody can take a segment for a message. It knows one class and
//! asks nobody.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use simple_dns::rdata::{A, AAAA, CNAME, RData, TXT};
use simple_dns::{CLASS, Name, Packet, QTYPE, RCODE, ResourceRecord, TYPE};

use super::{length, say, until_stdin_ends};
use crate::task::{Counts, Line, Zone};

const PORT: u16 = 53;
const TTL: u32 = 300;
const ALIAS: &str = "edge.cdn.example";
/// Bytes of one string of a TXT record.
const TEXT_BYTES: usize = 250;

type Shared = Arc<Mutex<Counts>>;

pub(super) fn perform(zones: &[Zone]) -> anyhow::Result<Counts> {
    let counts = Shared::default();
    let zones: Arc<[Zone]> = zones.into();
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).context("UDP port 53")?;
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).context("TCP port 53")?;
    let (udp_counts, udp_zones) = (Arc::clone(&counts), Arc::clone(&zones));
    thread::spawn(move || datagrams(&socket, &udp_zones, &udp_counts));
    let tcp_counts = Arc::clone(&counts);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // A client that went away is one that was not answered.
            let _ = connection(stream, &zones, &tcp_counts);
        }
    });
    say(&Line::Ready)?;
    until_stdin_ends();
    Ok(*counts.lock().unwrap_or_else(PoisonError::into_inner))
}

fn datagrams(socket: &UdpSocket, zones: &[Zone], counts: &Shared) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((bytes, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(answer) = answer(&buffer[..bytes], zones, false, counts) else { continue };
        let _ = socket.send_to(&answer, from);
    }
}

fn connection(mut stream: TcpStream, zones: &[Zone], counts: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut prefix = [0; 2];
        stream.read_exact(&mut prefix)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(prefix))];
        stream.read_exact(&mut question)?;
        let Some(answer) = answer(&question, zones, true, counts) else { return Ok(()) };
        let prefix = u16::try_from(answer.len()).map_err(std::io::Error::other)?.to_be_bytes();
        let whole = [&prefix, &*answer].concat();
        let (first, second) = whole.split_at(whole.len() / 2);
        stream.write_all(first)?;
        thread::sleep(Duration::from_millis(20));
        stream.write_all(second)?;
    }
}

fn answer(question: &[u8], zones: &[Zone], pad: bool, counts: &Shared) -> Option<Vec<u8>> {
    let asked = Packet::parse(question).ok()?;
    let mut reply = Packet::new_reply(asked.id());
    reply.questions.clone_from(&asked.questions);
    let question = reply.questions.first()?.clone();
    let name = question.qname.to_string();
    let alias = Name::new_unchecked(ALIAS);
    let mut add = |name: &Name<'_>, data: RData<'static>| {
        let name = name.clone().into_owned();
        reply.answers.push(ResourceRecord::new(name, CLASS::IN, TTL, data));
    };
    let zone = zones.iter().find(|zone| zone.name.eq_ignore_ascii_case(&name));
    if let Some(zone) = zone {
        if pad {
            let text = "x".repeat(TEXT_BYTES);
            for _ in 0..zone.padding_bytes.div_ceil(TEXT_BYTES) {
                let text = TXT::new().with_string(&text).ok()?.into_owned();
                add(&alias, RData::TXT(text));
            }
        }
        add(&question.qname, RData::CNAME(CNAME(alias.clone())));
        for address in &zone.addresses {
            let v4 = question.qtype == QTYPE::TYPE(TYPE::A);
            match address {
                IpAddr::V4(ip) if v4 => add(&alias, RData::A(A { address: (*ip).into() })),
                IpAddr::V6(ip) if !v4 => add(&alias, RData::AAAA(AAAA { address: (*ip).into() })),
                _ => {}
            }
        }
    } else {
        *reply.rcode_mut() = RCODE::NameError;
    }
    let answer = reply.build_bytes_vec_compressed().ok()?;
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.attempts += 1;
    counts.answered += 1;
    counts.sent_bytes += length(answer.len());
    Some(answer)
}
