//! TCP connections, one after the other.
//!
//! In: targets and how many. Out: how each ended. A connection is answered if the whole answer
//! arrived; it never retries.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::{is_refusal, length, pause};
use crate::task::{Connect, Counts};

pub(super) fn perform(task: &Connect) -> Counts {
    let mut counts = Counts::default();
    for _ in 0..task.count {
        for &target in &task.targets {
            counts.attempts += 1;
            counts.pairs += 1;
            match exchange(task, target, &mut counts) {
                Ok(()) => counts.answered += 1,
                Err(kind) if is_refusal(kind) => counts.refused += 1,
                Err(_) => counts.unanswered += 1,
            }
            pause(task.pause_ms);
        }
    }
    counts
}

fn exchange(task: &Connect, target: SocketAddr, counts: &mut Counts) -> Result<(), ErrorKind> {
    let patience = Duration::from_millis(task.timeout_ms.max(1));
    let kind = |error: std::io::Error| error.kind();
    let mut stream = TcpStream::connect_timeout(&target, patience).map_err(kind)?;
    stream.set_read_timeout(Some(patience)).map_err(kind)?;
    stream.write_all(&vec![b'q'; task.request_bytes]).map_err(kind)?;
    counts.sent_bytes += length(task.request_bytes);
    stream.shutdown(Shutdown::Write).map_err(kind)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(kind)?;
    counts.received_bytes += length(answer.len());
    Ok(())
}
