//! Traffic between sockets of the guest program itself, over loopback, for each address family.
//!
//! In: the numbers of [`report`]. Out: TCP and UDP that is answered or refused, and SCTP
//! associations by the kernel's own sockets that are answered, refused or never heard. It counts
//! nothing.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
use support::tool;

use crate::report;

/// What the kernel answers to the first packet of an association, on this port, is nothing.
const SILENCE: &str = "add table inet silence\n\
    add chain inet silence into { type filter hook input priority 0; }\n\
    add rule inet silence into sctp dport 7007 drop\n";

/// All of it, once.
pub(crate) fn perform() -> anyhow::Result<()> {
    tool::nft(SILENCE)?;
    for addr in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        tcp_answered(SocketAddr::new(addr, report::TCP_ANSWERED))?;
        let refused = TcpStream::connect(SocketAddr::new(addr, report::TCP_REFUSED));
        if refused.is_ok() {
            bail!("a port without listener answered on {addr}");
        }
        udp_answered(addr)?;
        udp_refused(addr)?;
        sctp_answered(SocketAddr::new(addr, report::SCTP_ANSWERED)).context("SCTP answered")?;
        let refused = associate(SocketAddr::new(addr, report::SCTP_REFUSED), SocketFlags::empty());
        if !matches!(refused, Err(Errno::CONNREFUSED)) {
            bail!("SCTP without listener on {addr}: {refused:?}");
        }
        let silent = SocketAddr::new(addr, report::SCTP_SILENT);
        let asked = associate(silent, SocketFlags::NONBLOCK);
        if !matches!(asked, Err(Errno::INPROGRESS)) {
            bail!("SCTP that nobody hears on {addr}: {asked:?}");
        }
    }
    Ok(())
}

fn tcp_answered(at: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at)?;
    for _ in 0..report::TCP_CONNECTIONS {
        let mut client = TcpStream::connect(at)?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"question")?;
        server.read_exact(&mut [0; 8])?;
        server.write_all(b"answer")?;
        client.read_exact(&mut [0; 6])?;
        drop(client);
        // The end of the stream: the client's FIN was seen before the next begins.
        server.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

fn udp_answered(addr: IpAddr) -> anyhow::Result<()> {
    let server = UdpSocket::bind(SocketAddr::new(addr, report::UDP_ANSWERED))?;
    let client = UdpSocket::bind(SocketAddr::new(addr, 0))?;
    client.connect(server.local_addr()?)?;
    for _ in 0..report::DATAGRAMS {
        client.send(b"question")?;
        let (_, from) = server.recv_from(&mut [0; 16])?;
        server.send_to(b"answer", from)?;
        client.recv(&mut [0; 16])?;
    }
    Ok(())
}

fn udp_refused(addr: IpAddr) -> anyhow::Result<()> {
    let client = UdpSocket::bind(SocketAddr::new(addr, 0))?;
    client.connect(SocketAddr::new(addr, report::UDP_REFUSED))?;
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.send(b"question")?;
    match client.recv(&mut [0; 16]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("{addr} did not refuse: {other:?}"),
    }
}

fn sctp(addr: IpAddr, flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = flags | SocketFlags::CLOEXEC;
    rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::SCTP))
}

fn associate(target: SocketAddr, flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    let socket = sctp(target.ip(), flags)?;
    // Or the association has all addresses of the node, and after some seconds a heartbeat on each.
    rustix::net::bind(&socket, &SocketAddr::new(target.ip(), 0))?;
    rustix::net::connect(&socket, &target).map(|()| socket)
}

/// Associations with a question, an answer and an orderly end.
fn sctp_answered(at: SocketAddr) -> anyhow::Result<()> {
    let listener = sctp(at.ip(), SocketFlags::empty())?;
    rustix::net::bind(&listener, &at)?;
    rustix::net::listen(&listener, 4)?;
    for _ in 0..report::SCTP_ASSOCIATIONS {
        let client = associate(at, SocketFlags::empty())?;
        let server = rustix::net::accept(&listener)?;
        rustix::net::send(&client, b"question", SendFlags::empty())?;
        rustix::net::recv(&server, &mut [0; 16][..], RecvFlags::empty())?;
        rustix::net::send(&server, b"answer", SendFlags::empty())?;
        rustix::net::recv(&client, &mut [0; 16][..], RecvFlags::empty())?;
        drop(client);
        // The end of the association: the client's shutdown was seen before the next begins.
        let (length, _) = rustix::net::recv(&server, &mut [0; 16][..], RecvFlags::empty())?;
        if length != 0 {
            bail!("{length} bytes after the last");
        }
    }
    Ok(())
}
