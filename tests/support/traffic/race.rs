//! A path that leads to another file from moment to moment while it is opened.
//!
//! In: two files and how often to open. Out: how many opens got the first one, told by what was
//! opened and not by any name.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;

use anyhow::Context as _;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use super::raw;
use super::read::c_path;
use crate::reading::{Race, Turns};
use crate::task::Counts;

pub(super) fn perform(task: &Race) -> anyhow::Result<Counts> {
    let wanted = rustix::fs::stat(&task.wanted).context("the wanted file")?;
    let is_wanted = |opened: &OwnedFd| {
        rustix::fs::fstat(opened)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino))
    };
    // Links, so that both can be named from one folder, which need not be in the volume.
    let names = ["a", "b"].map(|name| task.folder.join(name));
    for (name, target) in names.iter().zip([&task.wanted, &task.decoy]) {
        std::os::unix::fs::symlink(target, name).context("symlink")?;
    }
    let mut counts = Counts::default();
    let mut count = |opened: Result<OwnedFd, ()>| match opened {
        Ok(opened) => {
            counts.attempts += 1;
            counts.answered += u64::from(is_wanted(&opened));
        }
        Err(()) => counts.refused += 1,
    };
    let stop = AtomicBool::new(false);
    let [first, second] = &names;
    let bytes = c_path(first)?.into_bytes_with_nul();
    let bytes: Vec<_> = bytes.into_iter().map(AtomicU8::new).collect();
    let exchange = || {
        let _ = rustix::fs::renameat_with(CWD, first, CWD, second, RenameFlags::EXCHANGE);
    };
    let open = || rustix::fs::open(first, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let rewrite = || {
        // The last letter of the path; the zero stays.
        for letter in *b"ba" {
            bytes[bytes.len() - 2].store(letter, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                match task.turns {
                    Turns::Names => exchange(),
                    Turns::Argument => rewrite(),
                }
            }
        });
        for _ in 0..task.rounds {
            count(match task.turns {
                Turns::Names => open().map_err(drop),
                Turns::Argument => raw::open_changing(&bytes).map_err(drop),
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    for name in &names {
        std::fs::remove_file(name).context("the link")?;
    }
    Ok(counts)
}
