//! As many packets as a process can send.
//!
//! In: from whom, to whom. Out: how many were sent. It waits for nothing, tries again only where
//! the kernel had no room for a packet, and never sends from memory it did not count.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;

use super::{length, socket};
use crate::task::{Counts, Flood};

pub(super) fn perform(task: &Flood) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    match task {
        Flood::Scan { sources, target, ports } => {
            let socket = socket::whole_packets((*target).into())?;
            for &source in sources {
                for port in ports.0..=ports.1 {
                    let syn = syn(source, *target, port);
                    send(&socket, &syn, (*target, 0).into(), &mut counts)?;
                }
            }
        }
        Flood::Ask { sources, ports, target, port } => {
            let socket = socket::whole_packets((*target).into())?;
            for &source in sources {
                for from in ports.0..=ports.1 {
                    let question = datagram(source, *target, from, *port);
                    send(&socket, &question, (*target, 0).into(), &mut counts)?;
                }
            }
        }
        Flood::Sweep { first, addresses, ports, sockets } => {
            for _ in 0..*sockets {
                let socket = socket::datagram((*first, 0).into(), false)?;
                for number in 0..*addresses {
                    let target = above(*first, number);
                    for port in ports.0..=ports.1 {
                        send(&socket, b"x", (target, port).into(), &mut counts)?;
                    }
                }
                counts.pairs += 1;
            }
        }
    }
    Ok(counts)
}

fn send(
    socket: &UdpSocket,
    bytes: &[u8],
    to: SocketAddr,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    loop {
        match socket.send_to(bytes, to) {
            Ok(bytes) => {
                counts.attempts += 1;
                counts.sent_bytes += length(bytes);
                return Ok(());
            }
            // ENOBUFS: the kernel will have room again.
            Err(error) if error.raw_os_error() == Some(105) => {
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot send to {to}")),
        }
    }
}

fn above(first: IpAddr, number: u32) -> IpAddr {
    match first {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(number)).into(),
        IpAddr::V6(first) => {
            std::net::Ipv6Addr::from_bits(first.to_bits().wrapping_add(u128::from(number))).into()
        }
    }
}

/// IPv4, whose checksum the kernel fills in, and TCP.
fn syn(source: Ipv4Addr, target: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(target.octets());
    bytes.extend(45_678_u16.to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    let sum = super::chunk::checksum(
        &[&source.octets()[..], &target.octets(), &[0, 6, 0, 20], &bytes[20..]].concat(),
    );
    let [high, low] = sum.to_be_bytes();
    bytes[36] = high;
    bytes[37] = low;
    bytes
}

/// IPv4 and UDP with one byte in it; without a checksum of its own, which UDP may do (RFC 768).
fn datagram(source: Ipv4Addr, target: Ipv4Addr, from: u16, to: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(target.octets());
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend([0, 9, 0, 0, b'x']);
    bytes
}
