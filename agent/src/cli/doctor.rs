//! `parapet doctor`: what this kernel and node allow, all of it at once, on stdout; and the removal
//! of what agents left in the kernel.
//!
//! In: the running system. Out: a list, and exit code 0 if `parapet run` can do its work. It leaves
//! nothing attached, changes nothing unless asked for `--cleanup`, and needs no privilege to say
//! what is missing.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::Exit;
use super::run::whole_path;
use crate::export::report::form;
use crate::kernel::{KernelConfig, PINS_DEFAULT, Requirement, check, check_pins, cleanup};
use crate::node::{addresses, cgroups, conntrack};
use crate::runtime::KUBELET_ROOT_DEFAULT;

use self::parts::{PARTS, Part};
use self::secrets::Sight;

mod parts;
mod secrets;

/// What `parapet doctor` is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cgroup2 folder below which pods are; found by itself if not given
    #[arg(long, value_name = "DIR", env = "PARAPET_CGROUP_ROOT")]
    cgroup_root: Option<PathBuf>,
    /// The kubelet's folder, as `parapet run` has it
    #[arg(long, value_name = "DIR", default_value = KUBELET_ROOT_DEFAULT,
          env = "PARAPET_KUBELET_ROOT", value_parser = whole_path)]
    kubelet_root: PathBuf,
    /// Files and folders of the node, as `parapet run` has them
    #[arg(long = "watch-file", value_name = "PATH", env = "PARAPET_WATCH_FILE",
          value_delimiter = ',', value_parser = whole_path)]
    watched: Vec<PathBuf>,
    /// The form of the result
    #[arg(short, long, value_enum, default_value_t, env = "PARAPET_OUTPUT")]
    output: Output,
    /// Folder in which agents keep counters and programs over restarts; `none` as `parapet run` has
    /// it
    #[arg(long, value_name = "DIR", default_value = PINS_DEFAULT, env = "PARAPET_PIN_DIR")]
    pin_dir: PathBuf,
    /// Detach and remove everything that agents left in that folder, and list what that was: the
    /// last step of an uninstall
    ///
    /// Programs that are pinned go on counting while no agent runs, which is what makes a restart
    /// lose nothing. Stop the agent first; while one runs with these pins nothing is removed.
    #[arg(long)]
    cleanup: bool,
}

/// The form of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// `{"ok": bool, "requirements": [..], "secrets": {..}, "parts": [..]}`, or `{"removed": [..]}`
    /// of a cleanup; stable
    Json,
}

#[derive(Debug, Serialize)]
struct Findings {
    /// Whether everything that `parapet run` refuses to start without is there.
    ok: bool,
    requirements: Vec<Requirement>,
    /// How opens of secret files are seen, and what of them is not.
    secrets: Sight,
    /// What each part needs of its container, here or anywhere.
    parts: [Part; PARTS.len()],
}

#[derive(Debug, Serialize)]
struct Removed {
    removed: Vec<PathBuf>,
}

impl Args {
    fn pin_root(&self) -> Option<&Path> {
        (self.pin_dir != Path::new("none")).then_some(&self.pin_dir)
    }
}

/// Does it.
///
/// # Errors
/// The result cannot be written, or something cannot be removed.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.cleanup {
        return clean(&args);
    }
    let findings = look(&args);
    let text = match args.output {
        Output::Table => table(&findings),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&findings)?),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(if findings.ok { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

fn clean(args: &Args) -> anyhow::Result<ExitCode> {
    let root = args.pin_root().context(
        "--cleanup needs the folder that `parapet run` was given: leave out --pin-dir none, or \
         name it",
    )?;
    let removed = cleanup(root).with_context(|| format!("cannot clean up {}", root.display()))?;
    let text = match args.output {
        Output::Table => list(root, &removed),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&Removed { removed })?),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn list(root: &Path, removed: &[PathBuf]) -> String {
    if removed.is_empty() {
        return format!("nothing to remove: no agent left anything in {}\n", root.display());
    }
    removed.iter().map(|path| format!("removed {}\n", path.display())).collect()
}

fn look(args: &Args) -> Findings {
    let mut config = KernelConfig::default();
    if let Some(root) = cgroups::root(args.cgroup_root.as_deref()) {
        config.cgroup_root = root.folder;
        config.cgroup_prefix = root.prefix;
    } else if let Some(asked) = &args.cgroup_root {
        config.cgroup_root.clone_from(asked);
    }
    let (mut requirements, rung) = check(&config);
    requirements.push(check_pins(args.pin_root()));
    requirements.push(own_addresses());
    requirements.push(conntrack::check());
    let secrets = Sight::take(rung, &mut requirements);
    requirements.extend(secrets::check(&args.kubelet_root, &args.watched));
    let ok = requirements.iter().all(|one| one.ok || !one.required);
    Findings { ok, requirements, secrets, parts: PARTS }
}

fn own_addresses() -> Requirement {
    let count = addresses::read().own.len();
    let found = format!("{count} in this network namespace");
    Requirement::wanted(
        "the node's addresses",
        if count > 0 { Ok(found) } else { Err(found) },
        "traffic with the own node is taken for outside traffic",
        "run on the host network (hostNetwork: true)",
    )
}

fn table(findings: &Findings) -> String {
    let mut text = String::new();
    for one in &findings.requirements {
        let mark = match (one.ok, one.required) {
            (true, _) => "ok      ",
            (false, true) => "MISSING ",
            (false, false) => "reduced ",
        };
        // Writing to a string does not fail, here and below.
        let _ = writeln!(text, "{mark}{}: {}", one.name, one.found);
        if !one.ok {
            let _ = writeln!(text, "          without it: {}", one.costs);
            let _ = writeln!(text, "          to get it:  {}", one.how);
        }
    }
    let _ = writeln!(text, "\n{}\n{}", findings.secrets.text(), needs(&findings.parts));
    let verdict = if findings.ok { "can do its work here" } else { "cannot start here" };
    let _ = writeln!(text, "`parapet run` {verdict}.");
    text
}

/// What to give to a container that is to do no more than some of it.
fn needs(parts: &[Part]) -> String {
    let header =
        ["part", "capabilities", "host mounts", "namespaces", "without"].map(str::to_owned);
    let rows = parts.iter().map(|one| {
        [one.part, one.capabilities, one.host_mounts, one.namespaces, one.without]
            .map(str::to_owned)
            .to_vec()
    });
    format!("What each part needs:\n{}", form::aligned(&header, rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleanup_lists_what_is_gone_or_that_there_was_nothing() {
        let removed = [PathBuf::from("/b/p/abi2-cgroup1-flows8"), PathBuf::from("/b/p")];
        let root = Path::new("/b/p");
        assert_eq!(list(root, &removed), "removed /b/p/abi2-cgroup1-flows8\nremoved /b/p\n");
        assert_eq!(list(root, &[]), "nothing to remove: no agent left anything in /b/p\n");
    }

    #[test]
    fn what_is_missing_says_its_cost_and_its_cure() {
        let requirement = |name: &str, ok, required| Requirement {
            name: name.to_owned(),
            ok,
            required,
            found: "F".to_owned(),
            costs: "C".to_owned(),
            how: if ok { String::new() } else { "H".to_owned() },
        };
        let requirements = vec![
            requirement("a", true, true),
            requirement("b", false, true),
            requirement("c", false, false),
        ];
        let secrets =
            Sight { seen_by: Some("S"), not_used: vec!["N".to_owned()], cannot_see: &["X", "Y"] };
        let expected = "ok      a: F\nMISSING b: F\n          without it: C\n          \
                        to get it:  H\nreduced c: F\n          without it: C\n          \
                        to get it:  H\n\nOpens of secret files are seen by S\n  better, but \
                        not here: N\n  not seen: X\n  not seen: Y\n\nWhat each part needs:\n\
                        PART   CAPABILITIES             HOST MOUNTS     NAMESPACES  WITHOUT\n\
                        flows  BPF, PERFMON, NET_ADMIN  /sys/fs/cgroup  -           nothing \
                        runs\n\n`parapet run` cannot start here.\n";
        let findings = Findings { ok: false, requirements, secrets, parts: PARTS };
        let (head, tail) = (table(&findings), needs(&PARTS[..1]));
        let shown = head.replace(&needs(&PARTS), &tail);
        assert_eq!(shown, expected);
    }
}
