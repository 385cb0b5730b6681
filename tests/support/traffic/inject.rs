//! Packets exactly as they are given.
//!
//! In: bytes from the IP header on. Out: how many were sent. The kernel fills in what it always
//! fills in for IPv4 (length, checksum, an empty source or identification), if the header is long
//! enough, and nothing for IPv6. What the kernel refuses to send is counted as refused.

use super::{length, socket};
use crate::task::{Counts, Inject};

pub(super) fn perform(task: &Inject) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    for packet in &task.packets {
        counts.attempts += 1;
        let socket = socket::whole_packets(packet.to)?;
        match socket.send_to(&packet.bytes, (packet.to, 0)) {
            Ok(bytes) => counts.sent_bytes += length(bytes),
            Err(_) => counts.refused += 1,
        }
    }
    Ok(counts)
}
