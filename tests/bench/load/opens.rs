//! A file that is opened, read and closed, again and again, at a steady rate.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Done, now_ns};
use crate::outcome::number;

/// A shorter wait is spent with looking at the clock: a sleep takes longer than it is told to.
const SLEEP_MIN: Duration = Duration::from_micros(150);

/// Who is late begins at once.
pub(super) fn opens(file: &Path, per_second: u64, count: u64) -> anyhow::Result<Done> {
    let began_ns = now_ns();
    let began = Instant::now();
    let mut times = Vec::with_capacity(usize::try_from(count)?);
    for turn in 0..count {
        wait_until(began + Duration::from_secs_f64(number(turn) / number(per_second)));
        let since = Instant::now();
        let mut opened = File::open(file).with_context(|| file.display().to_string())?;
        let bytes = opened.read(&mut [0; 64])?;
        drop(opened);
        times.push(since.elapsed());
        ensure!(bytes > 0, "{} is empty", file.display());
    }
    Ok(Done::timed(times, began.elapsed(), began_ns))
}

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > SLEEP_MIN {
        thread::sleep(left - SLEEP_MIN);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}
