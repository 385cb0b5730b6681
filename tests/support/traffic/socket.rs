//! Sockets that the standard library does not make.
//!
//! In: a protocol and an address family. Out: a socket in the clothes of a UDP one, whose calls
//! (send to, receive from, connect, wait no longer than) are those of every datagram socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketType, ipproto, sockopt};

use crate::task::Speech;

const RAW_IP: u8 = 255;

/// An unconnected socket of UDP, or UDP-Lite, of the target's family.
pub(super) fn datagram(target: SocketAddr, lite: bool) -> anyhow::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    bound(any, lite)
}

/// A socket of UDP, or UDP-Lite, at this address.
pub(super) fn bound(address: SocketAddr, lite: bool) -> anyhow::Result<UdpSocket> {
    if !lite {
        let socket = UdpSocket::bind(address).context("cannot open a UDP socket")?;
        // To be told of nobody in particular is a wish that tests have.
        socket.set_broadcast(true).context("SO_BROADCAST")?;
        return Ok(socket);
    }
    let socket =
        rustix::net::socket(family(address.ip()), SocketType::DGRAM, Some(ipproto::UDPLITE))
            .context("cannot open a UDP-Lite socket")?;
    rustix::net::bind(&socket, &address).context("cannot bind a UDP-Lite socket")?;
    Ok(socket.into())
}

/// The socket that speaks so to this address.
pub(super) fn of(speech: Speech, target: IpAddr) -> anyhow::Result<UdpSocket> {
    let kind = if speech == Speech::Ping { SocketType::DGRAM } else { SocketType::RAW };
    open(family(target), kind, number(speech, target))
}

/// A raw socket that takes whole packets, IP header included.
pub(super) fn whole_packets(target: IpAddr) -> anyhow::Result<UdpSocket> {
    open(family(target), SocketType::RAW, RAW_IP)
}

/// The IP protocol.
pub(super) fn number(speech: Speech, target: IpAddr) -> u8 {
    match speech {
        Speech::Echo | Speech::Ping if target.is_ipv4() => 1,
        Speech::Echo | Speech::Ping => 58,
        Speech::Sctp => 132,
        Speech::Other(number) => number,
    }
}

/// The address as sockets without ports want it: the kernel refuses others for raw IPv6.
pub(super) fn without_port(target: SocketAddr) -> SocketAddr {
    (target.ip(), 0).into()
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

fn open(family: AddressFamily, kind: SocketType, number: u8) -> anyhow::Result<UdpSocket> {
    let protocol = RawProtocol::new(u32::from(number)).map(Protocol::from_raw);
    let socket = rustix::net::socket(family, kind, protocol)
        .with_context(|| format!("cannot open a socket of protocol {number}"))?;
    // What a burst brings must wait in the socket, not be lost.
    sockopt::set_socket_recv_buffer_size_force(&socket, 4 << 20).context("SO_RCVBUFFORCE")?;
    Ok(socket.into())
}
