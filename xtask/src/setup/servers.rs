//! A real API server for the cluster tier. The module in tests/servers and a Go compiler come in,
//! kube-apiserver, etcd and kubectl go out, in the user's cache folder. It never installs anything,
//! never changes the user's Go, and builds nothing where `KUBEBUILDER_ASSETS` names a folder that
//! has all three.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::kernels;
use crate::layout::Layout;
use crate::run;
use crate::run::say;

/// Where people who test against an API server keep these programs.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// The programs and the packages that they are built from.
const SERVERS: [(&str, &str); 3] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
];

/// The series of Go that builds them: what 1.27 builds ends while it reads its own OpenAPI.
const GO_SERIES: &str = "go1.26";
/// The release that is fetched where Go is of another series.
const GO_FETCHED: &str = "go1.26.8";

/// The folder with all of them, built first if there is none yet.
pub(crate) fn ensure(layout: &Layout) -> anyhow::Result<PathBuf> {
    if let Some(folder) = env::var_os(ASSETS).map(PathBuf::from) {
        match missing(&folder).as_slice() {
            [] => {
                say!(
                    "    present    kube-apiserver, etcd, kubectl of {ASSETS} {}",
                    folder.display()
                );
                return Ok(folder);
            }
            names => {
                let names = names.join(", ");
                say!("    {ASSETS} {} has no {names}; ours are used", folder.display());
            }
        }
    }
    let module = layout.root().join("tests/servers");
    let version = version(&module)?;
    let folder = kernels::cache()?.join("servers").join(format!("{version}-{}", mark(&module)?));
    if missing(&folder).is_empty() {
        say!("    present    kube-apiserver, etcd, kubectl {version} {}", folder.display());
        return Ok(folder);
    }
    build(&module, &version, &folder).context(
        "the servers of the cluster tier cannot be built; KUBEBUILDER_ASSETS may name a folder \
         that has kube-apiserver, etcd and kubectl",
    )?;
    Ok(folder)
}

fn missing(folder: &Path) -> Vec<&'static str> {
    let absent = |name: &&str| !run::is_executable(&folder.join(name));
    SERVERS.iter().map(|(name, _)| *name).filter(absent).collect()
}

/// `v1.36.3`, as the module wants it.
fn version(module: &Path) -> anyhow::Result<String> {
    let path = module.join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    required(&text, "k8s.io/kubernetes").context("tests/servers/go.mod has no k8s.io/kubernetes")
}

/// The version after this module's path in a `go.mod`.
fn required(text: &str, module: &str) -> Option<String> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| match (words.next(), words.next()) {
        (Some("require"), Some(first)) if first == module => words.next().map(str::to_owned),
        (Some(first), Some(version)) if first == module => Some(version.to_owned()),
        _ => None,
    })
}

/// What tells one set of modules from another: any change of a dependency is a new folder.
fn mark(module: &Path) -> anyhow::Result<String> {
    let mut sums = run::output(Command::new("sha256sum").arg(module.join("go.sum")))?;
    sums.truncate(12);
    Ok(sums)
}

fn build(module: &Path, version: &str, folder: &Path) -> anyhow::Result<()> {
    let go = go(folder)?;
    run::announce(
        &format!("build kube-apiserver, etcd and kubectl {version}"),
        "the cluster tier runs the agent against a real API server; about eight minutes on two \
         cores, once, kept in the cache folder",
    );
    let draft = folder.with_file_name(format!(".{version}-{}", std::process::id()));
    fs::create_dir_all(&draft).with_context(|| draft.display().to_string())?;
    let built = SERVERS.iter().try_for_each(|(name, package)| {
        run::step(
            &format!("go build {name}"),
            "from its Go module, each checked against go.sum",
            &mut compile(&go, module, version, &draft.join(name), package)?,
        )
    });
    // Renamed whole, so that an interrupted build is never taken for a finished one.
    let kept = built.and_then(|()| {
        let _ = fs::remove_dir_all(folder);
        fs::rename(&draft, folder).with_context(|| folder.display().to_string())
    });
    if kept.is_err() {
        let _ = fs::remove_dir_all(&draft);
    }
    kept
}

fn compile(
    go: &Path,
    module: &Path,
    version: &str,
    to: &Path,
    package: &str,
) -> anyhow::Result<Command> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = numbers.next().zip(numbers.next()).context("a version of two numbers")?;
    let mut flags = "-s -w".to_owned();
    // Where their own build writes it; without it kubectl cannot compare versions.
    for place in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
            flags.push_str(&format!(" -X {place}.{name}={value}"));
        }
    }
    let mut command = plain(go);
    command.current_dir(module).args([
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        &flags,
        "-o",
    ]);
    // A root in the environment is that of the Go on PATH, which this one need not be.
    command.arg(to).arg(package).env("CGO_ENABLED", "0").env_remove("GOROOT");
    Ok(command)
}

/// A `go` that is itself and no other that it would like to be.
fn plain(go: &Path) -> Command {
    let mut command = Command::new(go);
    command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("GOWORK", "off");
    command.stdin(Stdio::null());
    command
}

/// A Go of the right series: the one of this machine, or one that it fetches.
fn go(folder: &Path) -> anyhow::Result<PathBuf> {
    let go = run::find_program("go").context("there is no `go`; `cargo xtask setup` as root")?;
    let version = run::output(plain(&go).arg("version"))?;
    let version = version.split(' ').nth(2).unwrap_or_default();
    if is_of_series(version) {
        return Ok(go);
    }
    run::announce(
        &format!("fetch {GO_FETCHED}"),
        &format!("the API server wants {GO_SERIES} and this machine has {version}; about 70 MB"),
    );
    fetch(&go, folder).with_context(|| format!("{version} cannot fetch {GO_FETCHED}"))
}

fn is_of_series(version: &str) -> bool {
    version.strip_prefix(GO_SERIES).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Go publishes itself as a module, checked as every module is. Go fetches that by itself since
/// 1.21 (go.dev/doc/toolchain); this way older ones can do it too, such as Debian 12's.
fn fetch(go: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let machine = run::output(plain(go).args(["env", "GOOS", "GOARCH"]))?;
    let machine = machine.split_whitespace().collect::<Vec<_>>().join("-");
    let module = format!("golang.org/toolchain@v0.0.1-{GO_FETCHED}.{machine}");
    // Not below a go.mod, whose versions it would hold against it.
    let nowhere = folder.parent().context("a folder in the cache")?;
    fs::create_dir_all(nowhere).with_context(|| nowhere.display().to_string())?;
    let mut download = plain(go);
    let answer =
        run::output(download.current_dir(nowhere).args(["mod", "download", "-json", &module]))?;
    let root = place(&answer).context("it does not say where it put it")?;
    // Modules hold no programs, so what they unpack may not be run until somebody says so.
    for folder in ["bin".to_owned(), format!("pkg/tool/{}", machine.replace('-', "_"))] {
        let folder = root.join(folder);
        for file in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = file?.path();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| path.display().to_string())?;
        }
    }
    let fetched = root.join("bin/go");
    let version = run::output(plain(&fetched).env_remove("GOROOT").arg("version"))?;
    if !version.contains(GO_FETCHED) {
        bail!("{} says {version}", fetched.display());
    }
    Ok(fetched)
}

/// The `Dir` of what `go mod download -json` printed.
fn place(answer: &str) -> Option<PathBuf> {
    let line = answer.lines().find_map(|line| line.trim().strip_prefix("\"Dir\": \""))?;
    Some(PathBuf::from(line.split('"').next()?))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{GO_FETCHED, is_of_series, place, required};

    #[test]
    fn the_version_is_the_one_that_the_module_requires() {
        let text = "go 1.26.0\nrequire (\n\tk8s.io/kube v1.0.0\n\tk8s.io/kubernetes v1.36.3\n)\n\
                    require k8s.io/one v0.1.0\n";
        let found = ["k8s.io/kubernetes", "k8s.io/one", "k8s.io/none"];
        let found = found.map(|module| required(text, module));
        assert_eq!(found, [Some("v1.36.3".to_owned()), Some("v0.1.0".to_owned()), None]);
    }

    #[test]
    fn only_go_of_the_series_that_works_is_taken_as_it_is() {
        assert!(is_of_series(GO_FETCHED) && is_of_series("go1.26"));
        assert!(!["go1.19.8", "go1.27.0", "go1.260", ""].into_iter().any(is_of_series));
    }

    #[test]
    fn the_folder_of_a_fetched_module_is_read() {
        let answer =
            "{\n\t\"Path\": \"golang.org/toolchain\",\n\t\"Dir\": \"/go/pkg/mod/x@v1\",\n}";
        assert_eq!(place(answer), Some(PathBuf::from("/go/pkg/mod/x@v1")));
        assert_eq!(place("{\"Error\": \"no\"}"), None);
    }
}
