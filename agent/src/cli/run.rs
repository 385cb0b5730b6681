//! `parapet run`: arguments in, an agent that watches this node until it is told to stop, an exit
//! code out. It checks what it was asked before it touches the kernel.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parapet_core::engine::{KUBELET_UNITS, RUNTIME_UNITS};
use tokio::net::TcpListener;

use super::cluster::ClusterArgs;
use super::input::PolicyArgs;
use crate::export::Published;
use crate::export::http::LISTEN_DEFAULT;
use crate::kernel::{KernelConfig, PINS_DEFAULT, Rung};
use crate::node::{cgroups, host_name};
use crate::runtime::{KUBELET_ROOT_DEFAULT, ObjectSource, Peers, SecretsConfig};
use crate::{memory, runtime};

/// What `parapet run` is asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster's objects: files, folders or `-`, as `kubectl get -A -o yaml` prints them
    /// instead of a live cluster
    #[arg(long, value_name = "PATH", env = "PARAPET_MANIFESTS", value_delimiter = ',')]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How long the API server may be out of reach before verdicts are called stale: 90s, 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "10m", env = "PARAPET_STALE_AFTER",
          value_parser = duration)]
    stale_after: Duration,
    /// Which pods of other nodes to know, with a live cluster
    #[arg(long, value_name = "WHICH", value_enum, default_value_t, env = "PARAPET_PEERS")]
    peers: Peers,
    #[command(flatten)]
    policies: PolicyArgs,
    /// Where to serve metrics, status and reports
    #[arg(long, value_name = "ADDR", default_value = LISTEN_DEFAULT, env = "PARAPET_LISTEN")]
    listen: String,
    /// The cgroup2 folder below which pods are; found by itself if not given
    #[arg(long, value_name = "DIR", env = "PARAPET_CGROUP_ROOT")]
    cgroup_root: Option<PathBuf>,
    /// This node's name in the cluster [default: the host name]
    #[arg(long, value_name = "N", env = "PARAPET_NODE_NAME")]
    node_name: Option<String>,
    /// Flows the kernel can count at once
    #[arg(long, value_name = "N", default_value_t = parapet_common::FLOWS_MAX,
          env = "PARAPET_FLOWS_MAX", value_parser = clap::value_parser!(u32).range(1..1 << 23))]
    flows_max: u32,
    /// Folder on a BPF file system for counters that outlive the agent, so that a restart loses
    /// nothing; `none` to do without
    #[arg(long, value_name = "DIR", default_value = PINS_DEFAULT, env = "PARAPET_PIN_DIR")]
    pin_dir: PathBuf,
    #[command(flatten)]
    secrets: SecretArgs,
}

const SECRETS: &str = "Secrets";

/// Which secret files to watch, and whose work it is to read them.
#[derive(Debug, clap::Args)]
struct SecretArgs {
    /// The kubelet's folder, as this process sees it: secret volumes of pods are below it
    #[arg(long, help_heading = SECRETS, value_name = "DIR", default_value = KUBELET_ROOT_DEFAULT,
          env = "PARAPET_KUBELET_ROOT", value_parser = whole_path)]
    kubelet_root: PathBuf,
    /// A file of the node whose readers to report, or a folder with all its files, such as
    /// /var/lib/kubelet/pki or /etc/kubernetes/pki; may be given more than once
    #[arg(long = "watch-file", help_heading = SECRETS, value_name = "PATH",
          env = "PARAPET_WATCH_FILE", value_delimiter = ',', value_parser = whole_path)]
    watched: Vec<PathBuf>,
    /// The cgroup of the kubelet, which reads what it mounts; may be given more than once, instead
    /// of the defaults
    #[arg(long = "kubelet-cgroup", help_heading = SECRETS, value_name = "UNIT",
          default_values = KUBELET_UNITS, env = "PARAPET_KUBELET_CGROUP", value_delimiter = ',',
          value_parser = unit)]
    kubelet_units: Vec<String>,
    /// The cgroup of the container runtime; may be given more than once, instead of the defaults
    #[arg(long = "runtime-cgroup", help_heading = SECRETS, value_name = "UNIT",
          default_values = RUNTIME_UNITS, env = "PARAPET_RUNTIME_CGROUP", value_delimiter = ',',
          value_parser = unit)]
    runtime_units: Vec<String>,
    /// By what opens may be seen, the best that the kernel takes being used: lsm, fentry, kprobe
    /// and syscalls, or `none` to watch no secrets. Without `syscalls` no system call of this node
    /// ever takes longer than before
    #[arg(long = "secret-hooks", help_heading = SECRETS, value_name = "HOOKS",
          default_value = "lsm,fentry,kprobe,syscalls", env = "PARAPET_SECRET_HOOKS",
          value_parser = hooks)]
    hooks: Hooks,
    /// How often to look for descriptors that were passed on, and mappings: 30s, 5m. It goes
    /// through everything that the node's processes have open
    #[arg(long = "sweep-every", help_heading = SECRETS, value_name = "TIME", default_value = "30s",
          env = "PARAPET_SWEEP_EVERY", value_parser = duration)]
    sweep_every: Duration,
}

/// Ways to see opens.
#[derive(Clone, Debug)]
struct Hooks(Vec<Rung>);

impl SecretArgs {
    fn config(self) -> SecretsConfig {
        let Self { kubelet_root, watched, kubelet_units, runtime_units, sweep_every, .. } = self;
        SecretsConfig { kubelet_root, watched, kubelet_units, runtime_units, sweep_every }
    }
}

/// Runs the agent until SIGINT or SIGTERM.
///
/// # Errors
/// No objects to judge by, the address is taken, or the kernel does not allow what is needed.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let candidates = args.policies.sources();
    anyhow::ensure!(
        args.manifests.is_empty() || !args.cluster.is_given(),
        "--manifests and a live cluster exclude each other: drop one of them"
    );
    anyhow::ensure!(
        args.manifests.is_empty() || args.peers == Peers::All,
        "--peers seen looks pods up in a live cluster, and --manifests are none: drop one of them"
    );
    for path in args.manifests.iter().chain(candidates.iter().flat_map(|each| &each.paths)) {
        must_exist(path)?;
    }
    let root = cgroups::root(args.cgroup_root.as_deref()).context(
        "cgroup2 is missing: no pod can be told from another. Mount it (usually at \
         /sys/fs/cgroup), or name its folder with --cgroup-root",
    )?;
    let config = runtime::Config {
        objects: match args.manifests.is_empty() {
            true => ObjectSource::Cluster {
                target: args.cluster.target(),
                stale_after: args.stale_after,
                peers: args.peers,
            },
            false => ObjectSource::Manifests(args.manifests),
        },
        candidates,
        kernel: KernelConfig {
            cgroup_root: root.folder,
            cgroup_prefix: root.prefix,
            flows_max: args.flows_max,
            secret_rungs: args.secrets.hooks.0.clone(),
            pin_root: (args.pin_dir != Path::new("none")).then_some(args.pin_dir),
            ..KernelConfig::default()
        },
        node_name: args.node_name.unwrap_or_else(host_name),
        profile: args.policies.profile.into(),
        secrets: args.secrets.config(),
    };
    memory::give_back();
    let tasks = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no threads can be started")?;
    let done = tasks.block_on(async {
        let listener = TcpListener::bind(&args.listen)
            .await
            .with_context(|| format!("--listen {}", args.listen))?;
        tracing::info!("serving http://{}/metrics", listener.local_addr()?);
        runtime::run(config, listener, Arc::new(Published::default())).await
    });
    // A thread that waits for stdin would keep the process.
    tasks.shutdown_background();
    done?;
    Ok(ExitCode::SUCCESS)
}

/// Mounts are known by whole paths, and an agent's own folder is not the one of who asked.
pub(super) fn whole_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("write the whole path, from / on".to_owned()) }
}

/// `lsm,fentry`, or `none`.
fn hooks(text: &str) -> Result<Hooks, String> {
    if text == "none" {
        return Ok(Hooks(Vec::new()));
    }
    let one = |word: &str| match word.trim() {
        "lsm" => Ok(Rung::Lsm),
        "fentry" => Ok(Rung::Fentry),
        "kprobe" => Ok(Rung::Kprobe),
        "syscalls" => Ok(Rung::Syscalls),
        other => Err(format!(
            "{other:?} is none of lsm, fentry, kprobe, syscalls: name those that may be used, \
             with commas between them, or write none"
        )),
    };
    let wanted = text.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
    // In their own order: the best comes first.
    Ok(Hooks(Rung::ALL.into_iter().filter(|rung| wanted.contains(rung)).collect()))
}

/// A cgroup by its path below the root: `system.slice/kubelet.service`.
fn unit(text: &str) -> Result<String, String> {
    let unit = text.trim_matches('/');
    if unit.is_empty() {
        return Err("write its path below the root cgroup, such as system.slice/kubelet.service \
                    (systemctl show -p ControlGroup kubelet)"
            .to_owned());
    }
    Ok(unit.to_owned())
}

/// `90s`, `10m`, `2h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("{text:?} is no time: write 90s, 10m, 2h or 7d");
    let unit = text.char_indices().next_back().map_or(0, |(at, _)| at);
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(problem()),
    };
    let number: u64 = number.parse().map_err(|_| problem())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(problem)
}

/// A file that goes away later keeps its last objects; one that never was is a misspelt path, and
/// judging by nothing would call everything allowed.
fn must_exist(path: &Path) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return Ok(());
    }
    let found = path.try_exists().with_context(|| format!("{} cannot be read", path.display()))?;
    anyhow::ensure!(found, "{}: there is no such file or folder", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_named_in_any_order_and_used_in_their_own() {
        let named = |text: &str| hooks(text).map(|hooks| hooks.0);
        assert_eq!(named("none"), Ok(vec![]));
        assert_eq!(named("syscalls, lsm"), Ok(vec![Rung::Lsm, Rung::Syscalls]));
        assert_eq!(named("lsm,fentry,kprobe,syscalls"), Ok(Rung::ALL.to_vec()));
        let problem = "\"open\" is none of lsm, fentry, kprobe, syscalls: name those that may be \
                       used, with commas between them, or write none";
        assert_eq!(named("lsm,open"), Err(problem.to_owned()));
        assert!(named("").is_err() && named("lsm,none").is_err());
    }
}
