//! Running other programs. A prepared command comes in, its exit status goes out; what it writes
//! is seen live. It never runs a shell and never hides a program's own error output.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::layout::Layout;

/// Writes a line to stdout. A reader who went away (`| head`) ends no test run half way; stdout is
/// flushed by line even without a terminal, so that ours stand in order with other programs'.
macro_rules! say {
    ($($arguments:tt)*) => {{
        let mut stdout = std::io::stdout().lock();
        let _ = std::io::Write::write_fmt(&mut stdout, format_args!($($arguments)*));
        let _ = std::io::Write::write_all(&mut stdout, b"\n");
        let _ = std::io::Write::flush(&mut stdout);
    }};
}
pub(crate) use say;

/// Says what is being done now and why.
pub(crate) fn announce(what: &str, why: &str) {
    say!("==> {what} ({why})");
}

/// Runs `command` with its output going where ours goes; an unsuccessful end is an error.
pub(crate) fn step(what: &str, why: &str, command: &mut Command) -> anyhow::Result<()> {
    announce(what, why);
    let started = Instant::now();
    let status = status(command)?;
    if !status.success() {
        bail!("{what} failed ({status}): {}", shown(command));
    }
    say!("    done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs `command` with its output going where ours goes.
pub(crate) fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start {}", shown(command)))
}

/// Runs `command`, repeats each line of its stdout at once and hands it to `each_line`.
pub(crate) fn stream(
    command: &mut Command,
    mut each_line: impl FnMut(&str),
) -> anyhow::Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let pipe = child.stdout.take().context("the child's stdout is not a pipe")?;
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes)? > 0 {
        let line = String::from_utf8_lossy(&bytes);
        say!("{}", line.trim_end_matches('\n'));
        each_line(line.trim_end());
        bytes.clear();
    }
    Ok(child.wait()?)
}

/// The stdout of a short command that must succeed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let out = command
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !out.status.success() {
        bail!("{} ended with {}", shown(command), out.status);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The cargo that runs us, in the root of the checkout.
pub(crate) fn cargo(layout: &Layout) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(layout.root());
    // A value from the caller's shell would replace the object that `build` has just made.
    command.env_remove("PARAPET_BPF_OBJECT");
    command.env("CARGO_TARGET_DIR", layout.target());
    command
}

/// The first executable file called `name` on PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    // Debian keeps nft and friends in sbin folders that a user's PATH does not always name.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|folder| folder.join(name))
        .find(|candidate| is_executable(candidate))
}

/// A regular file that someone may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A command as a person would type it, for error messages.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
