//! The guest's only file system: busybox and the guest program in, an initramfs out. The program is
//! linked as every other test is, so its shared libraries are packed with it: a static one would
//! need all crates compiled a second time.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

const GUEST: &str = env!("CARGO_BIN_EXE_parapet-guest");
const BUSYBOX: &str = "/bin/busybox";

/// Ends in a power-off whatever happens; the console's last lines say what did.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox ip link set lo up
/bin/guest
/bin/busybox poweroff -f
";

/// An initramfs that is removed with this value.
pub(crate) struct Image {
    _folder: TempDir,
    pub(crate) path: PathBuf,
}

/// Made once for all kernels.
pub(crate) static IMAGE: LazyLock<Image> = LazyLock::new(make);

fn make() -> Image {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    // The debug information is nine tenths of it, and the guest holds all of it in memory.
    run(Command::new("strip").args(["--strip-debug", "-o"]).arg(root.join("bin/guest")).arg(GUEST));
    for library in libraries(Path::new(GUEST)) {
        let inside = root.join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(&library, inside).unwrap();
    }
    fs::write(root.join("init"), INIT).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();

    let path = folder.path().join("initramfs");
    let names = output(Command::new("find").arg(".").current_dir(&root));
    fs::write(folder.path().join("names"), names).unwrap();
    run(Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=0:0"])
        .current_dir(&root)
        .stdin(fs::File::open(folder.path().join("names")).unwrap())
        .stdout(fs::File::create(&path).unwrap()));
    Image { _folder: folder, path }
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
