//! Files, opened in every way there is.
//!
//! In: paths and ways. Out: how many opens went well and how many read something. Contents are read
//! and dropped.

use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use super::{pause, raw, say, until_stdin_ends};
use crate::reading::{Use, Way};
use crate::task::{Counts, Line};

/// What a way came to.
pub(super) enum Got {
    /// A descriptor to read from.
    Descriptor(OwnedFd),
    /// Something else that holds the content.
    Content(#[expect(dead_code, reason = "held, and never looked at")] Box<dyn std::any::Any>),
    /// Nothing that could be read.
    Nothing,
}

pub(super) fn perform(task: &Use) -> anyhow::Result<Counts> {
    if let Some(comm) = &task.comm {
        rustix::thread::set_name(&CString::new(comm.as_str())?).context("the name")?;
    }
    let paths = task.paths.iter().map(|path| prepared(path, task.way));
    let paths = paths.collect::<anyhow::Result<Vec<_>>>()?;
    let mut counts = Counts::default();
    let mut held = Vec::new();
    if !task.holds {
        say(&Line::Ready)?;
    }
    for round in 0..task.count {
        for path in &paths {
            let Ok(got) = open(path, task.way) else {
                counts.refused += 1;
                continue;
            };
            counts.attempts += 1;
            counts.answered += u64::from(take(&got, task.way)?);
            if task.holds {
                held.push(got);
            }
        }
        if round + 1 < task.count {
            pause(task.pause_ms);
        }
    }
    if task.holds {
        say(&Line::Ready)?;
        until_stdin_ends();
    }
    for path in &paths {
        if matches!(task.way, Way::Symlink | Way::HardLink) {
            std::fs::remove_file(path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(counts)
}

/// What must be there before, and the path that leads to the file then.
fn prepared(path: &Path, way: Way) -> anyhow::Result<PathBuf> {
    let name = || -> anyhow::Result<String> {
        let name = path.file_name().context("no file")?.to_string_lossy();
        Ok(format!("{name}-{}", std::process::id()))
    };
    let folder = || path.parent().context("no folder");
    match way {
        Way::Symlink => {
            let link = std::env::temp_dir().join(name()?);
            std::os::unix::fs::symlink(path, &link).context("symlink")?;
            Ok(link)
        }
        Way::HardLink => {
            let path = path.canonicalize().context("the file")?;
            let link = folder()?.canonicalize()?.join(name()?);
            std::fs::hard_link(path, &link).context("link")?;
            Ok(link)
        }
        Way::RootOf(pid) => {
            let below = path.strip_prefix("/").context("no whole path")?;
            Ok(Path::new("/proc").join(pid.to_string()).join("root").join(below))
        }
        Way::BindMount => {
            raw::own_mounts()?;
            let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", flags).context("mount namespace")?;
            mount_bind(folder()?, "/mnt").context("bind mount")?;
            Ok(Path::new("/mnt").join(path.file_name().context("no file")?))
        }
        _ => Ok(path.to_owned()),
    }
}

fn open(path: &Path, way: Way) -> anyhow::Result<Got> {
    let plain = |flags: OFlags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    let got = match way {
        Way::Open
        | Way::OpenOnly
        | Way::Symlink
        | Way::HardLink
        | Way::RootOf(_)
        | Way::BindMount => plain(OFlags::RDONLY)?,
        Way::PathOnly => {
            plain(OFlags::PATH)?;
            return Ok(Got::Nothing);
        }
        Way::Status => {
            rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
            return Ok(Got::Nothing);
        }
        Way::Create => {
            let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::RUSR)?
        }
        Way::Openat2 => rustix::fs::openat2(
            CWD,
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::empty(),
        )?,
        Way::BelowFolder => {
            let folder = File::open(path.parent().context("no folder")?)?;
            let name = path.file_name().context("no file")?;
            rustix::fs::openat(&folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?
        }
        Way::Handle => raw::open_by_handle(path)?,
        Way::Ring => raw::ring_open(path, false)?,
        Way::Ring2 => raw::ring_open(path, true)?,
        Way::RingSlot => return Ok(Got::Content(Box::new(raw::ring_read_slot(path)?))),
        Way::Reopen => {
            let first = plain(OFlags::PATH)?;
            let again = format!("/proc/self/fd/{}", first.as_raw_fd());
            rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?
        }
        Way::Map => {
            let file = plain(OFlags::RDONLY)?;
            return Ok(Got::Content(Box::new(raw::map(file.as_fd())?)));
        }
    };
    Ok(Got::Descriptor(got))
}

/// Whether something was read.
fn take(got: &Got, way: Way) -> anyhow::Result<bool> {
    match got {
        Got::Descriptor(_) if way == Way::OpenOnly => Ok(false),
        Got::Descriptor(descriptor) => {
            let mut content = Vec::new();
            File::from(descriptor.try_clone()?).read_to_end(&mut content)?;
            Ok(true)
        }
        Got::Content(_) => Ok(true),
        Got::Nothing => Ok(false),
    }
}

/// A path as system calls want it.
pub(super) fn c_path(path: &Path) -> anyhow::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
