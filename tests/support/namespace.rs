//! Network namespaces by name.
//!
//! In: names. Out: namespaces, and work done inside of them. A thread that entered one ends there,
//! so that no caller finds itself in another place; `/sys` is left alone, unlike `ip netns exec`.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::tool;

/// Where `ip netns` keeps its names.
pub const NAMES: &str = "/run/netns";

/// A named network namespace. It stays until [`remove`] is called.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
}

impl Namespace {
    /// Makes one in which IPv6 addresses can be used at once.
    ///
    /// # Errors
    /// Without the right to make namespaces, or if the name is taken.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        tool::run("ip", &["netns", "add", name], "")?;
        let made = Self { name: name.to_string(), path: Path::new(NAMES).join(name) };
        made.within(|| {
            for scope in ["all", "default"] {
                let ipv6 = format!("/proc/sys/net/ipv6/conf/{scope}");
                let ipv4 = format!("/proc/sys/net/ipv4/conf/{scope}");
                set(&format!("{ipv6}/accept_dad"), "0")?;
                set(&format!("{ipv6}/accept_ra"), "0")?;
                // Everything goes through the node: hints that there is a shorter way are wrong.
                set(&format!("{ipv6}/accept_redirects"), "0")?;
                set(&format!("{ipv4}/accept_redirects"), "0")?;
                set(&format!("{ipv4}/send_redirects"), "0")?;
            }
            // Every refusal is said: a generator counts them.
            set("/proc/sys/net/ipv4/icmp_ratelimit", "0")?;
            set("/proc/sys/net/ipv6/icmp/ratelimit", "0")?;
            tool::ip("link set lo up").map(drop)
        })?;
        Ok(made)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does this inside, on a thread of its own; programs that it starts are inside too.
    ///
    /// # Errors
    /// If it cannot be entered, and what the work says.
    pub fn within<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.path)?;
                work()
            });
            inside.join().map_err(|_| anyhow!("a thread in {} panicked", self.name))?
        })
        .with_context(|| format!("in network namespace {}", self.name))
    }
}

/// Moves the calling thread, and no other, into a namespace.
///
/// # Errors
/// If the file is no network namespace or the right to enter is missing.
pub fn enter(path: &Path) -> anyhow::Result<()> {
    let shown = || format!("cannot enter network namespace {}", path.display());
    let file = File::open(path).with_context(shown)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).with_context(shown)
}

/// Switches on the forwarding of packets in the caller's namespace.
///
/// # Errors
/// If `/proc/sys` cannot be written.
pub fn forward_packets() -> anyhow::Result<()> {
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    set("/proc/sys/net/ipv6/conf/all/forwarding", "1")
}

/// Removes the name; the namespace ends with its last process and socket.
///
/// # Errors
/// If `ip` fails.
pub fn remove(name: &str) -> anyhow::Result<()> {
    tool::run("ip", &["netns", "del", name], "").map(drop)
}

/// All names that begin so, sorted.
///
/// # Errors
/// If the folder is there and cannot be read.
pub fn named(prefix: &str) -> anyhow::Result<Vec<String>> {
    if !Path::new(NAMES).is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(NAMES).context(NAMES)? {
        let name = entry.context(NAMES)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn set(path: &str, value: &str) -> anyhow::Result<()> {
    fs::write(path, value).with_context(|| format!("cannot set {path} to {value}"))
}

/// Does this in a network namespace, or here.
///
/// # Errors
/// Those of the work, or if the namespace cannot be entered.
pub(crate) fn within<T: Send>(
    network: Option<&Namespace>,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    match network {
        Some(network) => network.within(work),
        None => work(),
    }
}
