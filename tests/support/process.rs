//! Processes of pods, started and listened to.
//!
//! In: an order for the traffic program. Out: its lines, parsed. A process that is dropped without
//! having been asked for its report is killed and reaped; none is left as a zombie.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};

use crate::task::{Counts, Line, Order};

/// The program that processes of pods run: one whose main hands its argument to
/// [`crate::traffic::perform`].
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// The program at this path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The running program itself.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn current() -> anyhow::Result<Self> {
        Ok(Self::at(std::env::current_exe().context("cannot find the running program")?))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The command that carries out an order.
    ///
    /// # Errors
    /// If the order cannot be written as JSON.
    pub fn command(&self, order: &Order) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.path);
        command.arg(crate::traffic::WORD).arg(serde_json::to_string(order)?);
        Ok(command)
    }
}

/// A running process of a pod.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
    shown: String,
}

impl Process {
    /// Starts the program with this order and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot start, or ends before it is ready.
    pub fn start(program: &Program, order: &Order) -> anyhow::Result<Self> {
        let shown = format!("{:?}", order.task);
        let mut child = program
            .command(order)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.path().display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a process without stdout")?;
        let mut process = Self { child, stdin, lines: BufReader::new(stdout), shown };
        match process.line()? {
            Line::Ready => Ok(process),
            Line::Done(counts) => bail!("{} was done too early: {counts:?}", process.shown),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells a server to stop, waits for the end and returns what it counted.
    ///
    /// # Errors
    /// If it failed; what it said is on stderr.
    pub fn finish(mut self) -> anyhow::Result<Counts> {
        drop(self.stdin.take());
        let line = self.line()?;
        let status = self.child.wait().with_context(|| self.shown.clone())?;
        match line {
            Line::Done(counts) if status.success() => Ok(counts),
            line => bail!("{} ended with {status} after {line:?}", self.shown),
        }
    }

    fn line(&mut self) -> anyhow::Result<Line> {
        let mut line = String::new();
        self.lines.read_line(&mut line).with_context(|| self.shown.clone())?;
        if line.is_empty() {
            bail!("{} ended without a word", self.shown);
        }
        serde_json::from_str(&line).with_context(|| format!("{} said {line}", self.shown))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
