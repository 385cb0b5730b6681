//! Stock kernels of Debian for the emulated machines. The machine's own archive mirror and keyring
//! come in, one checked kernel image for each entry of [`KERNELS`] goes out with the modules that
//! tests load, in the user's cache folder. It never installs a package and never touches the
//! machine's own apt state; what is there is never fetched again.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::run;
use crate::run::say;

mod modules;

/// Everything Debian ever signed an archive with that is still valid; apt refuses anything else.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org/debian";
/// Kernels of Debian's that boot without a disk and carry no drivers for hardware.
const FLAVOUR: &str = "-cloud-amd64";

/// A kernel series and where Debian keeps it.
struct Series {
    /// Name of its folder in the cache, as tests/kernels/expected.rs has it.
    name: &'static str,
    /// What its versions begin with; empty for the newest of all.
    version: &'static str,
    /// Suites that are asked in turn; one with a `-security` end is of the security archive.
    suites: &'static [&'static str],
}

const KERNELS: [Series; 4] = [
    Series { name: "5.10", version: "5.10.", suites: &["bullseye-security", "bullseye"] },
    Series { name: "6.1", version: "6.1.", suites: &["bookworm-security", "bookworm"] },
    Series { name: "6.12", version: "6.12.", suites: &["trixie-security", "trixie"] },
    Series { name: "new", version: "", suites: &["trixie-backports", "forky", "sid"] },
];

/// The oldest that counts as new.
const NEW_AT_LEAST: [u32; 2] = [6, 18];

/// Where everything is kept that is made once for all checkouts.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where downloads may be kept")?;
    Ok(cache.join("parapet"))
}

/// Fetches what is not there yet.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    // `<name>/<version>/vmlinuz` below it, and `modules` beside each.
    let folder = cache()?.join("kernels");
    for series in &KERNELS {
        if let Some(image) = present(&folder, series) {
            say!("    present    Linux {:<10} {}", series.name, image.display());
            continue;
        }
        run::announce(
            &format!("fetch a stock Linux {}", series.name),
            "the kernels tier boots it in an emulated machine; kept in the cache folder",
        );
        let image = fetch(&folder, series)
            .with_context(|| format!("Linux {} of Debian cannot be had", series.name))?;
        say!("    fetched    Linux {:<10} {}", series.name, image.display());
    }
    Ok(folder)
}

fn present(folder: &Path, series: &Series) -> Option<PathBuf> {
    let versions = fs::read_dir(folder.join(series.name)).ok()?;
    // The list is written last. An older setup kept no modules.
    let whole = |path: &PathBuf| path.join(modules::FOLDER).join(modules::ORDER).is_file();
    let mut images = versions.flatten().map(|version| version.path()).filter(whole);
    images.next().map(|path| path.join("vmlinuz"))
}

/// The newest of the first suite that has one.
fn fetch(folder: &Path, series: &Series) -> anyhow::Result<PathBuf> {
    let mirror = mirror();
    let mut problems = Vec::new();
    for suite in series.suites {
        match fetch_from(folder, series, &mirror, suite) {
            Ok(image) => return Ok(image),
            Err(error) => problems.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("{}", problems.join("; "))
}

fn fetch_from(
    folder: &Path,
    series: &Series,
    mirror: &str,
    suite: &str,
) -> anyhow::Result<PathBuf> {
    let work = Work::new(&folder.join(format!(".{}-{}", series.name, std::process::id())))?;
    let archive = if suite.ends_with("-security") { "-security" } else { "" };
    let source = format!("deb [arch=amd64 signed-by={KEYRING}] {mirror}{archive} {suite} main\n");
    fs::write(work.path().join("sources.list"), source)?;
    run::output(work.apt("apt-get").args(["update", "--error-on=any"]))?;
    let names = run::output(work.apt("apt-cache").args(["pkgnames", "linux-"]))?;
    let names: Vec<_> = names.lines().collect();
    let release = newest(&names, series).context("it has no such kernel")?;
    // Debian's newest packages of the first name only depend on those with the image and modules.
    let parts = ["binary", "modules"].map(|part| format!("linux-{part}-{release}"));
    let is_parted = parts.iter().all(|part| names.contains(&part.as_str()));
    let packages = if is_parted { parts.into() } else { vec![format!("linux-image-{release}")] };
    run::output(work.apt("apt-get").arg("download").args(&packages))?;
    work.unpack()?;

    let root = work.path().join("root");
    let vmlinuz = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")]
        .map(|path| root.join(path));
    let found = vmlinuz.iter().find(|path| path.is_file());
    let found = found.with_context(|| format!("{} hold no vmlinuz", packages.join(", ")))?;
    let whole = work.path().join("whole");
    modules::keep(&root, &release, &whole.join(modules::FOLDER))?;
    fs::rename(found, whole.join("vmlinuz"))?;
    let series = folder.join(series.name);
    if series.is_dir() {
        // What an older setup kept, without modules: one version of each series is tested.
        fs::remove_dir_all(&series)?;
    }
    fs::create_dir_all(&series)?;
    // Renamed, so that an interrupted setup never leaves half of it.
    fs::rename(&whole, series.join(&release))?;
    Ok(series.join(&release).join("vmlinuz"))
}

/// The release (`6.1.0-56-cloud-amd64`) of the newest kernel of the series.
fn newest(packages: &[&str], series: &Series) -> Option<String> {
    packages
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .filter(|release| release.ends_with(FLAVOUR) && release.starts_with(series.version))
        .filter(|release| {
            let numbers = numbers(release);
            let is_new = numbers.get(..2).is_some_and(|two| two >= NEW_AT_LEAST.as_slice());
            // `linux-image-6.1-cloud-amd64` names no kernel but follows the newest.
            numbers.len() > 2 && (is_new || !series.version.is_empty())
        })
        .max_by_key(|release| numbers(release))
        .map(|release| (*release).to_owned())
}

/// All numbers in a version, in order.
fn numbers(release: &str) -> Vec<u32> {
    let version = release.strip_suffix(FLAVOUR).unwrap_or(release);
    version.split(|letter: char| !letter.is_ascii_digit()).flat_map(str::parse).collect()
}

/// The archive that the machine's own apt uses, so that a mirror near it is used here too.
fn mirror() -> String {
    let targets = run::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(ORIGIN)",
    ]));
    targets.ok().and_then(|answer| debian_archive(&answer)).unwrap_or_else(|| MIRROR.to_owned())
}

/// Of lines of `URI ORIGIN`, Debian's main archive: the security archive lies beside it.
fn debian_archive(answer: &str) -> Option<String> {
    let uris = answer.lines().filter_map(|line| line.strip_suffix(" Debian"));
    uris.map(|uri| uri.trim_end_matches('/'))
        .find(|uri| uri.starts_with("http") && uri.ends_with("/debian"))
        .map(str::to_owned)
}

/// A folder with an apt of its own, removed in the end.
struct Work(PathBuf);

impl Work {
    fn new(path: &Path) -> anyhow::Result<Self> {
        let work = Self(path.to_path_buf());
        for folder in ["state/lists/partial", "cache/archives/partial", "debs", "root"] {
            fs::create_dir_all(path.join(folder))
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        fs::write(path.join("state/status"), "")?;
        Ok(work)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// apt with nothing of the machine's but its proxy and its trust in Debian's keys.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str, path: &str| format!("{name}={}", self.0.join(path).display());
        for option in [
            at("Dir::Etc::sourcelist", "sources.list"),
            at("Dir::State", "state"),
            at("Dir::State::status", "state/status"),
            at("Dir::Cache", "cache"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "Dir::Etc::preferencesparts=/dev/null".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // Descriptions for software centres, as large as the list of packages itself.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // apt's own user may not enter a home folder; what it reads is checked all the same.
            "APT::Sandbox::User=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.current_dir(self.0.join("debs")).stdin(Stdio::null());
        command
    }

    fn unpack(&self) -> anyhow::Result<()> {
        for package in fs::read_dir(self.0.join("debs"))? {
            let mut command = Command::new("dpkg-deb");
            command.arg("--extract").arg(package?.path()).arg(self.0.join("root"));
            run::output(&mut command)?;
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // A leftover only takes room in the cache, and its name says whose it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{KERNELS, debian_archive, newest};

    const PACKAGES: [&str; 10] = [
        "linux-image-6.1-cloud-amd64",
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-57-cloud-amd64-unsigned",
        "linux-image-6.12.100+deb13-cloud-amd64",
        "linux-image-6.12.95+deb13-cloud-amd64",
        "linux-image-6.12.101+deb13-amd64",
        "linux-image-7.0.4+deb13-cloud-amd64",
        "linux-binary-7.0.4+deb13-cloud-amd64",
        "linux-image-cloud-amd64",
    ];

    #[test]
    fn the_newest_kernel_of_each_series_is_taken() {
        let found = KERNELS.each_ref().map(|series| newest(&PACKAGES, series));
        let some = |release: &str| Some(release.to_owned());
        let expected = [
            None,
            some("6.1.0-56-cloud-amd64"),
            some("6.12.100+deb13-cloud-amd64"),
            some("7.0.4+deb13-cloud-amd64"),
        ];
        assert_eq!(found, expected);
        // A suite without anything newer is none for it.
        assert_eq!(newest(&PACKAGES[..7], &KERNELS[3]), None);
    }

    #[test]
    fn the_machines_own_mirror_is_used() {
        let answer = "http://mirror.example/debian-security/ Debian\n\
                      https://other.example/apt Other\n\
                      http://mirror.example/debian/ Debian\n";
        assert_eq!(debian_archive(answer).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(debian_archive("https://other.example/debian Other\n"), None);
    }
}
