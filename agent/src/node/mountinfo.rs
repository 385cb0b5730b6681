//! The mounts of a process: the text of `/proc/<pid>/mountinfo` in, its entries out.
//!
//! The form is that of proc_pid_mountinfo(5). It follows no path and asks nobody else.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Longest text that is read: a namespace has at most 100 000 mounts (`fs.mount-max`).
const BYTES_MAX: u64 = 64 << 20;
/// Bits of the minor number in the kernel's own device numbers (include/linux/kdev_t.h).
const MINOR_BITS: u32 = 20;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Unique among the mounts that are there.
    pub id: u64,
    /// Device number of its superblock, as the kernel has it.
    pub device: u32,
    /// What of its file system is shown: `/` for all of it.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Which kind of file system.
    pub kind: FileSystem,
}

/// Those that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// What secret volumes are.
    Tmpfs,
    /// Version 2 of control groups.
    Cgroup2,
    /// Any other.
    Other,
}

/// Reads the text.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// Each entry whose line holds this text, in the order of the kernel; all for an empty one. A line
/// that cannot be read is skipped.
pub fn mounts<'a>(text: &'a [u8], holding: &'a str) -> impl Iterator<Item = Mount> + 'a {
    let finder = memchr::memmem::Finder::new(holding.as_bytes());
    text.split(|byte| *byte == b'\n')
        .filter(move |line| finder.find(line).is_some())
        .filter_map(mount)
}

/// Device number as the kernel has it.
#[must_use]
pub fn device(major: u32, minor: u32) -> u32 {
    (major << MINOR_BITS) | minor
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let mut numbers = fields.nth(1)?.split(|byte| *byte == b':');
    let major = u32::try_from(number(numbers.next()?)?).ok()?;
    let minor = u32::try_from(number(numbers.next()?)?).ok()?;
    let root = unescaped(fields.next()?);
    let point = unescaped(fields.next()?);
    // Options, then any number of fields, then a dash, then the kind.
    let kind = fields.skip(1).skip_while(|field| *field != b"-").nth(1)?;
    let kind = match kind {
        b"tmpfs" => FileSystem::Tmpfs,
        b"cgroup2" => FileSystem::Cgroup2,
        _ => FileSystem::Other,
    };
    Some(Mount { id, device: device(major, minor), root, point, kind })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Blanks, tabs, newlines and backslashes are octal: `\040`.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let value = digits.and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        plain.push(value.unwrap_or(first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw shared:9 master:1 propagate_from:2 - tmpfs tmpfs rw,mode=755
64 27 0:300 /..2024_1/a\\040b\\134x /var/x\\011y rw - tmpfs tmpfs rw
broken
65 27 0:x / /z rw - tmpfs tmpfs rw
66 27 0:7 / /z rw
";

    #[test]
    fn entries_are_read_and_broken_lines_skipped() {
        let mount = |id, device, root: &str, point: &str, kind| Mount {
            id,
            device,
            root: root.into(),
            point: point.into(),
            kind,
        };
        let all: Vec<_> = mounts(TEXT.as_bytes(), "").collect();
        let expected = vec![
            mount(27, 254 << 20, "/", "/", FileSystem::Other),
            mount(31, 28, "/", "/sys/fs/cgroup", FileSystem::Tmpfs),
            mount(64, 300, "/..2024_1/a b\\x", "/var/x\ty", FileSystem::Tmpfs),
        ];
        assert_eq!(all, expected);
        let some: Vec<_> = mounts(TEXT.as_bytes(), " /sys/").map(|mount| mount.id).collect();
        assert_eq!(some, [31]);
    }

    #[test]
    fn what_is_no_octal_stays() {
        let plain = |text: &str| unescaped(text.as_bytes());
        assert_eq!(plain("a\\9b\\04"), PathBuf::from("a\\9b\\04"));
        assert_eq!(plain("\\134040"), PathBuf::from("\\040"));
        assert_eq!(plain("\\777"), PathBuf::from("\\777"));
    }
}
