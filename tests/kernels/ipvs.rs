//! Virtual services of the kernel's own load balancer, as kube-proxy makes them in its IPVS mode.
//!
//! In: a Service's address and its backends. Out: a virtual service of the caller's network
//! namespace that leads to them in turn, with rewritten targets. It speaks generic netlink and only
//! adds; what it made goes with the namespace.
//!
//! Layouts are those of `linux/netlink.h`, `linux/genetlink.h` and `linux/ip_vs.h`.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, bail};
use parapet_core::flow::Protocol;
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLMSG_ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_ACK`
const REQUEST: u16 = 1 | 4;
const NLA_F_NESTED: u16 = 1 << 15;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Before a generic message's attributes: netlink's header, then command, version and two zeros.
const ATTRIBUTES: usize = 16 + 4;

const IPVS_CMD_NEW_SERVICE: u8 = 1;
const IPVS_CMD_NEW_DEST: u8 = 5;
const IPVS_CMD_ATTR_SERVICE: u16 = 1;
const IPVS_CMD_ATTR_DEST: u16 = 2;
const IPVS_SVC_ATTR_AF: u16 = 1;
const IPVS_SVC_ATTR_PROTOCOL: u16 = 2;
const IPVS_SVC_ATTR_ADDR: u16 = 3;
const IPVS_SVC_ATTR_PORT: u16 = 4;
const IPVS_SVC_ATTR_SCHED_NAME: u16 = 6;
const IPVS_SVC_ATTR_FLAGS: u16 = 7;
const IPVS_SVC_ATTR_TIMEOUT: u16 = 8;
const IPVS_SVC_ATTR_NETMASK: u16 = 9;
const IPVS_DEST_ATTR_ADDR: u16 = 1;
const IPVS_DEST_ATTR_PORT: u16 = 2;
const IPVS_DEST_ATTR_FWD_METHOD: u16 = 3;
const IPVS_DEST_ATTR_WEIGHT: u16 = 4;
const IPVS_DEST_ATTR_U_THRESH: u16 = 5;
const IPVS_DEST_ATTR_L_THRESH: u16 = 6;
const IPVS_DEST_ATTR_ADDR_FAMILY: u16 = 11;
/// `IP_VS_CONN_F_MASQ`: the target is rewritten, which is the only way kube-proxy uses.
const REWRITTEN: u32 = 0;

/// A way to the balancer of one network namespace.
pub(crate) struct Balancer {
    socket: OwnedFd,
    family: u16,
}

impl Balancer {
    /// That of the caller's namespace.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let family = AddressFamily::NETLINK;
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, kind, flags, Some(GENERIC))?;
        let mut balancer = Self { socket, family: 0 };
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"IPVS\0");
        let answer = balancer.ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name)?;
        let found = attributes(&answer).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
        let (_, id) = found.context("the kernel has no IPVS")?;
        balancer.family = u16::from_ne_bytes(*id.first_chunk().context("half a number")?);
        Ok(balancer)
    }

    /// Leads what is asked of this address to these, each its turn.
    pub(crate) fn serve(
        &self,
        protocol: Protocol,
        asked: SocketAddr,
        backends: &[SocketAddr],
    ) -> anyhow::Result<()> {
        let mut service = [
            attribute(IPVS_SVC_ATTR_AF, &family(asked.ip()).to_ne_bytes()),
            attribute(IPVS_SVC_ATTR_PROTOCOL, &u16::from(protocol.0).to_ne_bytes()),
            attribute(IPVS_SVC_ATTR_ADDR, &bytes(asked.ip())),
            attribute(IPVS_SVC_ATTR_PORT, &asked.port().to_be_bytes()),
        ]
        .concat();
        let named = nest(IPVS_CMD_ATTR_SERVICE, &service);
        service.extend(attribute(IPVS_SVC_ATTR_SCHED_NAME, b"rr\0"));
        // Flags and the mask of those that are meant.
        service.extend(attribute(IPVS_SVC_ATTR_FLAGS, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
        service.extend(attribute(IPVS_SVC_ATTR_TIMEOUT, &0_u32.to_ne_bytes()));
        let mask = if asked.is_ipv4() { u32::MAX } else { 128 };
        service.extend(attribute(IPVS_SVC_ATTR_NETMASK, &mask.to_ne_bytes()));
        let whole = nest(IPVS_CMD_ATTR_SERVICE, &service);
        self.ask(self.family, IPVS_CMD_NEW_SERVICE, &whole)
            .with_context(|| format!("virtual service {asked}"))?;
        for backend in backends {
            let target = [
                attribute(IPVS_DEST_ATTR_ADDR, &bytes(backend.ip())),
                attribute(IPVS_DEST_ATTR_PORT, &backend.port().to_be_bytes()),
                attribute(IPVS_DEST_ATTR_FWD_METHOD, &REWRITTEN.to_ne_bytes()),
                attribute(IPVS_DEST_ATTR_WEIGHT, &1_u32.to_ne_bytes()),
                attribute(IPVS_DEST_ATTR_U_THRESH, &0_u32.to_ne_bytes()),
                attribute(IPVS_DEST_ATTR_L_THRESH, &0_u32.to_ne_bytes()),
                attribute(IPVS_DEST_ATTR_ADDR_FAMILY, &family(backend.ip()).to_ne_bytes()),
            ];
            let both = [named.clone(), nest(IPVS_CMD_ATTR_DEST, &target.concat())].concat();
            self.ask(self.family, IPVS_CMD_NEW_DEST, &both)
                .with_context(|| format!("backend {backend} of {asked}"))?;
        }
        Ok(())
    }

    /// Sends a command; the answer comes back if there is one beside its being done.
    fn ask(&self, kind: u16, command: u8, attributes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let length = u32::try_from(ATTRIBUTES + attributes.len())?;
        let mut message = Vec::from(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(REQUEST.to_ne_bytes());
        // Sequence and sender: one question at a time.
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, &message, SendFlags::empty(), &kernel)?;
        let mut answer = Vec::new();
        loop {
            let mut datagram = vec![0; 16_384];
            let (length, _) =
                rustix::net::recv(&self.socket, &mut datagram[..], RecvFlags::empty())?;
            datagram.truncate(length);
            let kind = datagram.get(4..6).and_then(|bytes| bytes.first_chunk::<2>());
            if kind.map(|kind| u16::from_ne_bytes(*kind)) != Some(NLMSG_ERROR) {
                answer = datagram;
                continue;
            }
            let code = datagram.get(16..).and_then(|bytes| bytes.first_chunk::<4>());
            match code.map(|code| i32::from_ne_bytes(*code)) {
                Some(0) => return Ok(answer),
                Some(code) => bail!("{}", std::io::Error::from_raw_os_error(-code)),
                None => bail!("half an answer"),
            }
        }
    }
}

fn family(addr: IpAddr) -> u16 {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    family.as_raw()
}

/// Of a `union nf_inet_addr`.
fn bytes(addr: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match addr {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, value)
}

/// Type and value of each attribute of a generic message.
fn attributes(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(ATTRIBUTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
