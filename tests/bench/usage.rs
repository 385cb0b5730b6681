//! What a process uses, as `/proc` tells it: processor time, memory, and the run time of the BPF
//! programs that it holds.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// User and system time of all threads, those that ended included (proc(5): fields 14 and 15).
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let ticks = ticks(&text).with_context(|| format!("{path} says {text}"))?;
    let ns_a_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_nanos(ticks * ns_a_tick))
}

/// The second field is a name in parentheses that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory, in megabytes of 10^6 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// `VmRSS`: all of it.
    pub(crate) resident: f64,
    /// `RssAnon`: what nobody else has and no file holds.
    pub(crate) anonymous: f64,
    /// `RssFile`: of the binary, and the kernel's counters that are mapped.
    pub(crate) file: f64,
    /// `VmHWM`: the most there was.
    pub(crate) highest: f64,
}

pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = |name| {
        let kilobytes = kilobytes(&text, name).with_context(|| format!("{path} without {name}"))?;
        anyhow::Ok(kilobytes * 1_024.0 / 1e6)
    };
    Ok(Memory {
        resident: field("VmRSS:")?,
        anonymous: field("RssAnon:")?,
        file: field("RssFile:")?,
        highest: field("VmHWM:")?,
    })
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Time in the programs that this process holds since they were loaded, while statistics are on
/// (Linux 5.12 tells it in fdinfo).
pub(crate) fn programs(pid: u32) -> anyhow::Result<Duration> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut total = 0;
    let mut seen = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
        // A descriptor may be closed meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let number = |name| whole(&text, name);
        if let (Some(id), Some(time)) = (number("prog_id:"), number("run_time_ns:"))
            && !seen.contains(&id)
        {
            seen.push(id);
            total += time;
        }
    }
    Ok(Duration::from_nanos(total))
}

fn whole(fdinfo: &str, name: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{kilobytes, ticks};

    #[test]
    fn times_stand_after_a_name_with_anything_in_it() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 4 0 100 0 0";
        assert_eq!(ticks(stat), Some(12));
        assert_eq!(ticks("12 (a) S 1"), None);
    }

    #[test]
    fn memory_is_found_by_its_name() {
        let status = "Name:\tparapet\nVmHWM:\t   30000 kB\nVmRSS:\t   20000 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(20_000.0));
        assert_eq!(kilobytes(status, "VmSwap:"), None);
    }
}
