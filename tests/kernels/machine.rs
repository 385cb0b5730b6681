//! One emulated machine: a kernel's name in, everything it wrote to its console out. The machine is
//! this process's child and ends with the call, by itself or killed.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use crate::image::Image;

/// A boot takes six seconds on an idle machine; the emulated verifier takes one for every ten
/// thousand instructions, three times on kernels before 5.16.
const TIME_MAX: Duration = Duration::from_secs(300);

/// The result of one boot.
pub(crate) struct Run {
    /// As the image's folder names it.
    pub(crate) version: String,
    pub(crate) console: String,
}

/// Killed when dropped, so that a failing test leaves none.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the kernel and waits until it has powered off.
pub(crate) fn boot(kernel: &str) -> Run {
    let (version, vmlinuz) = find(kernel);
    let image = Image::with(&vmlinuz.with_file_name("modules"));
    let mut machine = start(&vmlinuz, &image);
    let mut pipe = machine.0.stdout.take().unwrap();
    // Read beside it: a full pipe would stop the machine.
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let started = Instant::now();
    let ended = loop {
        if machine.0.try_wait().unwrap().is_some() {
            break true;
        }
        if started.elapsed() > TIME_MAX {
            break false;
        }
        thread::sleep(Duration::from_millis(50));
    };
    drop(machine);
    let console = reader.join().unwrap();
    assert!(ended, "Linux {version} did not power off in {TIME_MAX:?}; its console:\n{console}");
    Run { version, console }
}

fn start(vmlinuz: &Path, image: &Image) -> Machine {
    let child = Command::new("qemu-system-x86_64")
        // Emulated in software: nothing here may depend on the machine that tests run on.
        // One thread for both processors: with a thread each one may run, in the middle of it, the
        // code that the other is patching, and a booting kernel patches much ("Oops: int3").
        .args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "512"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-nographic", "-serial", "stdio"])
        .arg("-kernel")
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(&image.path)
        // A panic reboots at once, which ends the machine.
        .args(["-append", "console=ttyS0 loglevel=4 panic=-1 rdinit=/init"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Machine(child)
}

/// `<PARAPET_KERNELS>/<kernel>/<version>/vmlinuz`, as `cargo xtask setup` keeps them.
fn find(kernel: &str) -> (String, PathBuf) {
    let root = env::var_os("PARAPET_KERNELS")
        .expect("PARAPET_KERNELS is not set: use `cargo xtask test --tier kernels`");
    let folder = Path::new(&root).join(kernel);
    let mut versions: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("vmlinuz").is_file())
        .collect();
    assert_eq!(versions.len(), 1, "one version of each kernel is kept: {versions:?}");
    let version = versions.remove(0);
    (version.file_name().unwrap().to_string_lossy().into_owned(), version.join("vmlinuz"))
}
