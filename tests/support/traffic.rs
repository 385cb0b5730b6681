//! What the traffic program does: enters a pod and then serves, connects or sends.
//!
//! In: an [`Order`] as JSON. Out: [`Line`]s on stdout, with exact counts. It makes no socket before
//! it has entered the pod, and sends nothing that it does not count.

use std::io::{ErrorKind, Read as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::task::{Line, Order, Place, Task};
use crate::{cgroup, lifetime, namespace};

mod answer;
mod chunk;
mod connect;
mod exchange;
mod flood;
mod hold;
mod inject;
mod names;
mod pass;
mod race;
pub mod raw;
mod read;
mod resolve;
mod send;
mod serve;
mod socket;

/// The first argument by which a program knows that it is to be the traffic program.
pub const WORD: &str = "traffic";

/// Carries out the order if the program was started for that, and else returns none.
#[must_use]
pub fn perform_if_told() -> Option<ExitCode> {
    perform_if(WORD, perform)
}

/// Carries out the second argument if the first one is this word, and else returns none.
pub fn perform_if(
    word: &str,
    perform: impl FnOnce(&str) -> anyhow::Result<()>,
) -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(word) {
        return None;
    }
    let order = arguments.next().unwrap_or_default();
    Some(match perform(&order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{word}: {error:#}");
            ExitCode::FAILURE
        }
    })
}

/// Carries out one order, from entering the pod to the last line.
///
/// # Errors
/// If it cannot be read, its place cannot be entered or a socket cannot be made.
pub fn perform(order: &str) -> anyhow::Result<()> {
    let order: Order = serde_json::from_str(order).context("the order cannot be read")?;
    if let Some(place) = &order.place {
        enter(place)?;
    }
    let counts = match &order.task {
        Task::Serve(task) => serve::perform(task)?,
        Task::Connect(task) => {
            say(&Line::Ready)?;
            connect::perform(task)
        }
        Task::Send(task) => {
            say(&Line::Ready)?;
            send::perform(task)?
        }
        Task::Names(zones) => names::perform(zones)?,
        Task::Resolve(task) => {
            say(&Line::Ready)?;
            resolve::perform(task)?
        }
        Task::Exchange(task) => {
            say(&Line::Ready)?;
            exchange::perform(task)?
        }
        Task::Answer(task) => answer::perform(*task)?,
        Task::Hold(task) => hold::perform(task)?,
        Task::Inject(task) => {
            say(&Line::Ready)?;
            inject::perform(task)?
        }
        Task::Flood(task) => {
            say(&Line::Ready)?;
            flood::perform(task)?
        }
        Task::Use(task) => read::perform(task)?,
        Task::Race(task) => {
            say(&Line::Ready)?;
            race::perform(task)?
        }
        Task::Pass(task) => pass::perform(task)?,
        Task::Reap(run) => {
            until_stdin_ends();
            return lifetime::sweep(run);
        }
    };
    say(&Line::Done(counts))
}

/// Goes where an order is to be carried out. The cgroup first: a socket belongs to the cgroup in
/// which it was made.
///
/// # Errors
/// If either cannot be entered.
pub fn enter(place: &Place) -> anyhow::Result<()> {
    if let Some(path) = &place.cgroup {
        cgroup::join(path, 0)?;
    }
    namespace::enter(&place.namespace)
}

/// What is left on stdin does not matter, only that the other end is gone or says enough.
fn until_stdin_ends() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn say(line: &Line) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(line)?).context("stdout")?;
    stdout.flush().context("stdout")
}

/// Whether the other side, or a router on the way, said no.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            // ICMPv6 "administratively prohibited".
            | ErrorKind::PermissionDenied
    )
}

fn pause(milliseconds: u64) {
    if milliseconds > 0 {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
