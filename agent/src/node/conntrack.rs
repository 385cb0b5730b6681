//! The kernel's connection tracking: where a connection was led to, and whose source was rewritten.
//!
//! In: tuples to ask for. Out: [`Entry`]s of this network namespace's table, which must be the
//! node's. It asks over ctnetlink, because `/proc/net/nf_conntrack` is not built everywhere; it
//! never changes the table, and one answer never costs more than it is bounded to.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use self::message::Answer;
use crate::kernel::Requirement;

pub use self::message::{Entry, Tuple};
pub use self::translator::Translator;

mod message;
mod translator;

/// Entries read in one go at most; the rest of the table is not looked at.
pub const ENTRIES_MAX: usize = 262_144;
/// The kernel fills at most this much of a datagram.
const DATAGRAM_BYTES: usize = 32_768;
/// An answer comes from the same system call; this is for what nobody thought of.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Datagrams read for one question at most, so that no stream of others' answers holds it up.
const DATAGRAMS_MAX: usize = 65_536;

/// Why the table cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Netfilter wants this right in the network namespace that is asked.
    #[error("this process lacks CAP_NET_ADMIN in its network namespace")]
    NotPermitted,
    /// Nobody tracks connections, or nobody tells of it.
    #[error("this kernel has no nf_conntrack_netlink")]
    NotThere,
    /// Anything else.
    #[error("connection tracking answers: {0}")]
    Other(Errno),
}

/// A way to the table.
#[derive(Debug)]
pub struct Conntrack {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Conntrack {
    /// Opens the way and asks one question, so that what is missing is known now.
    ///
    /// # Errors
    /// The right or the kernel's part is missing.
    pub fn open() -> Result<Self, Unavailable> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )
        .map_err(reason)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(reason)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIME_MAX)).map_err(reason)?;
        let mut table = Self { socket, sequence: 0, buffer: vec![0; DATAGRAM_BYTES] };
        table.entry(&nobodys())?;
        Ok(table)
    }

    /// The connection that began so; none if it is not tracked.
    ///
    /// # Errors
    /// The table cannot be asked.
    pub fn entry(&mut self, tuple: &Tuple) -> Result<Option<Entry>, Unavailable> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = message::get(tuple, self.sequence);
        let mut found = None;
        // One answer, without an end unless it is an error.
        match self.ask(&question, |answer| {
            if let Answer::Entry(entry) = answer {
                found = Some(entry);
            }
            true
        }) {
            Ok(()) => Ok(found),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(reason(error)),
        }
    }

    /// Looks at every connection whose target sees another source address than the one that began.
    /// False if there were more than [`ENTRIES_MAX`] of them.
    ///
    /// # Errors
    /// The table cannot be read to its end.
    pub fn rewritten(&mut self, mut look: impl FnMut(&Entry)) -> Result<bool, Unavailable> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = message::dump_rewritten(self.sequence);
        let mut left = ENTRIES_MAX;
        self.ask(&question, |answer| {
            // Kernels that do not filter by status send every entry; those do not count.
            if let Answer::Entry(entry) = answer
                && entry.has_other_source()
            {
                look(&entry);
                left = left.saturating_sub(1);
            }
            left == 0
        })
        .map_err(reason)?;
        Ok(left > 0)
    }

    /// Hands over the answers to a question until its end, or until that was enough.
    fn ask(
        &mut self,
        question: &[u8],
        mut is_enough: impl FnMut(Answer) -> bool,
    ) -> Result<(), Errno> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, question, SendFlags::empty(), &kernel)?;
        for _ in 0..DATAGRAMS_MAX {
            let received =
                rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty());
            let length = match received {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let bytes = self.buffer.get(..length).unwrap_or_default();
            // Answers to a question that was given up are still on their way; they are skipped.
            for answer in message::answers(bytes, self.sequence) {
                match answer {
                    Answer::End(0) => return Ok(()),
                    Answer::End(code) => return Err(Errno::from_raw_os_error(code)),
                    answer => {
                        if is_enough(answer) {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Err(Errno::TIMEDOUT)
    }
}

/// A connection that nobody can have: from port 0 of the documentation's addresses.
fn nobodys() -> Tuple {
    let none = std::net::SocketAddr::from(([192, 0, 2, 0], 0));
    Tuple { protocol: parapet_core::flow::Protocol::TCP, source: none, target: none }
}

fn reason(error: Errno) -> Unavailable {
    match error {
        Errno::PERM | Errno::ACCESS => Unavailable::NotPermitted,
        // A socket family or a subsystem that nobody registered.
        Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::INVAL | Errno::OPNOTSUPP => {
            Unavailable::NotThere
        }
        error if error.kind() == ErrorKind::PermissionDenied => Unavailable::NotPermitted,
        error => Unavailable::Other(error),
    }
}

/// What `parapet doctor` says of it.
#[must_use]
pub fn check() -> Requirement {
    let opened = Conntrack::open();
    let how = match &opened {
        Ok(_) => "",
        Err(Unavailable::NotPermitted) => "grant CAP_NET_ADMIN and run on the host network",
        Err(Unavailable::NotThere) => "load nf_conntrack_netlink (CONFIG_NF_CT_NETLINK)",
        Err(Unavailable::Other(_)) => "run on the host network (hostNetwork: true)",
    };
    Requirement::wanted(
        "connection tracking",
        opened.map(|_| "ctnetlink answers".to_owned()).map_err(|error| error.to_string()),
        "connections to a Service whose backends differ stay with the Service, and a source that \
         the node rewrote is taken for the node's own",
        how,
    )
}
