//! What a process does with files that it was told of, and in which of the many ways.
//!
//! In: nothing (values only). Out: tasks of the traffic program. `attempts` of their counts are
//! opens that went well, `answered` those whose content was read, `refused` those that failed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::task::Task;

/// Files, each opened this often, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// Which.
    pub paths: Vec<PathBuf>,
    /// How.
    pub way: Way,
    /// How often each.
    pub count: u64,
    /// Pause after each round.
    pub pause_ms: u64,
    /// Keep the last one open, or mapped, until stdin ends.
    pub holds: bool,
    /// What the thread is to be called before.
    pub comm: Option<String>,
}

/// A way to a file's content, or to less than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// `openat` and `read`.
    #[default]
    Open,
    /// `openat`, and nothing is read.
    OpenOnly,
    /// `openat` with `O_PATH`: no use of the file.
    PathOnly,
    /// `statx`: no use of the file.
    Status,
    /// `openat` with `O_CREAT` of a file that is there.
    Create,
    /// `openat2`.
    Openat2,
    /// `openat` below a descriptor of its folder.
    BelowFolder,
    /// `open_by_handle_at`.
    Handle,
    /// `IORING_OP_OPENAT`.
    Ring,
    /// `IORING_OP_OPENAT2`.
    Ring2,
    /// `IORING_OP_OPENAT` into a slot of the ring's own table, then `IORING_OP_READ` from there.
    RingSlot,
    /// By a symbolic link elsewhere.
    Symlink,
    /// By a second name in the same volume.
    HardLink,
    /// By the root folder of a process.
    RootOf(u32),
    /// By a mount of the volume somewhere else, in a mount namespace of its own.
    BindMount,
    /// `O_PATH`, then again by `/proc/self/fd`.
    Reopen,
    /// `openat`, `mmap`, close, then a look at the first byte.
    Map,
}

/// A name, or the argument of a system call, that changes all the time between two files while it
/// is opened. `attempts` of its counts are opens of any of the two, `answered` those that got the
/// first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Race {
    /// What is counted.
    pub wanted: PathBuf,
    /// The other one.
    pub decoy: PathBuf,
    /// A folder for names.
    pub folder: PathBuf,
    /// Opens.
    pub rounds: u64,
    /// What changes.
    pub turns: Turns,
}

/// What changes while a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    /// Two names are exchanged (`renameat2`).
    Names,
    /// The path in the memory of the caller is another one from moment to moment.
    Argument,
}

/// A descriptor that goes from one process to another over a Unix socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Pass {
    /// Opens the file, waits at the socket for one who asks, passes it on, and ends.
    Give {
        /// What.
        path: PathBuf,
        /// Where the socket is made.
        socket: PathBuf,
    },
    /// Asks for a descriptor, reads through it and keeps it until stdin ends.
    Take {
        /// Where the socket is.
        socket: PathBuf,
    },
}

impl Use {
    /// One file, used in this way this often.
    #[must_use]
    pub fn of(path: impl Into<PathBuf>, way: Way, count: u64) -> Self {
        Self { paths: vec![path.into()], way, count, ..Self::default() }
    }

    /// Kept open until stdin ends.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.holds = true;
        self
    }

    /// The task.
    #[must_use]
    pub fn task(self) -> Task {
        Task::Use(self)
    }
}

impl Task {
    /// Opens and reads a file this often.
    #[must_use]
    pub fn read(path: impl Into<PathBuf>, count: u64) -> Self {
        Use::of(path, Way::Open, count).task()
    }
}
