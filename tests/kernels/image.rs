//! The guest's only file system: busybox, the guest program, what configures its network and the
//! kernel's modules in, an initramfs out. Programs are linked as everywhere, so their shared
//! libraries are packed with them: a static guest would need all crates compiled a second time.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

const GUEST: &str = env!("CARGO_BIN_EXE_parapet-guest");
const BUSYBOX: &str = "/bin/busybox";

/// What the simulated node runs, where the guest finds it.
const TOOLS: [(&str, &str); 2] = [("ip", "/sbin/ip"), ("nft", "/usr/sbin/nft")];

/// Ends in a power-off whatever happens; the console's last lines say what did.
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t securityfs securityfs /sys/kernel/security
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox ip link set lo up
/bin/busybox ln -s /run /var/run
/bin/guest
/bin/busybox poweroff -f
";

/// An initramfs that is removed with this value.
pub(crate) struct Image {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

/// Made once for all kernels.
static COMMON: LazyLock<Image> = LazyLock::new(make);

impl Image {
    /// For the kernel with these modules: the kernel unpacks archives one after the other.
    pub(crate) fn with(modules: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("root");
        let inside = root.join("modules");
        fs::create_dir_all(&inside).unwrap();
        for entry in fs::read_dir(modules).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, inside.join(path.file_name().unwrap())).unwrap();
        }
        let own = pack(folder.path(), &root);
        let path = folder.path().join("whole");
        let mut whole = fs::read(&COMMON.path).unwrap();
        whole.extend(fs::read(own).unwrap());
        fs::write(&path, whole).unwrap();
        Self { _folder: folder, path }
    }
}

fn make() -> Image {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    for name in ["bin", "dev", "proc", "run", "sys", "tmp", "var"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    // The debug information is nine tenths of it, and the guest holds all of it in memory.
    run(Command::new("strip").args(["--strip-debug", "-o"]).arg(root.join("bin/guest")).arg(GUEST));
    add_libraries(&root, Path::new(GUEST));
    for (name, path) in TOOLS {
        fs::copy(path, root.join("bin").join(name)).unwrap();
        add_libraries(&root, Path::new(path));
    }
    fs::write(root.join("init"), INIT).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = pack(folder.path(), &root);
    Image { _folder: folder, path }
}

fn add_libraries(root: &Path, program: &Path) {
    for library in libraries(program) {
        let inside = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(&library, inside).unwrap();
    }
}

/// An archive of all that is below the root, in the folder.
fn pack(folder: &Path, root: &Path) -> PathBuf {
    let path = folder.join("initramfs");
    let names = output(Command::new("find").arg(".").current_dir(root));
    fs::write(folder.join("names"), names).unwrap();
    run(Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=0:0"])
        .current_dir(root)
        .stdin(fs::File::open(folder.join("names")).unwrap())
        .stdout(fs::File::create(&path).unwrap()));
    path
}

/// The shared libraries and the loader, as ldd names them: the absolute paths of its lines.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let lines = output(Command::new("ldd").arg(program));
    let words = lines.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?} ended with {status}");
}
