//! The one list of what the project needs from the system. Nothing comes in; each package goes
//! out with the reason it is there. A package that no code or test uses never stands here.

use std::collections::BTreeSet;

use crate::run;

/// The LLVM that Debian's compiler is built with and bpf-linker is built against.
pub(crate) const LLVM_MAJOR: u32 = 22;

/// One package and how its presence is known.
pub(crate) struct Need {
    /// Debian's name.
    pub(crate) package: &'static str,
    /// A program whose presence makes the package unnecessary, however it was installed.
    pub(crate) program: Option<&'static str>,
    /// Only for the Debian way to compile BPF, not for rustup's nightly with rust-src.
    pub(crate) is_for_debian_compiler: bool,
    /// Why it is here, as setup prints it.
    pub(crate) reason: &'static str,
}

impl Need {
    /// Whether nothing is to be installed for this need.
    pub(crate) fn is_present(&self, installed: &BTreeSet<String>) -> bool {
        installed.contains(self.package)
            || self.program.is_some_and(|program| run::find_program(program).is_some())
    }
}

const fn tool(package: &'static str, program: &'static str, reason: &'static str) -> Need {
    Need { package, program: Some(program), is_for_debian_compiler: false, reason }
}

const fn package(package: &'static str, reason: &'static str) -> Need {
    Need { package, program: None, is_for_debian_compiler: false, reason }
}

const fn compiler(package: &'static str, reason: &'static str) -> Need {
    Need { package, program: None, is_for_debian_compiler: true, reason }
}

/// Everything, in the order in which it is needed.
pub(crate) const PACKAGES: [Need; 21] = [
    tool("g++", "g++", "links every Rust binary; LLVM in bpf-linker and libFuzzer are C++"),
    tool("ca-certificates", "update-ca-certificates", "cargo fetches crates over TLS"),
    compiler("rustc-web", "Debian's current rustc, which compiles the BPF programs"),
    compiler("rust-web-src", "the source of Rust's core library: there is no built one for BPF"),
    compiler("llvm-22-dev", "bpf-linker is built against the LLVM of that rustc"),
    tool("iproute2", "ip", "the simulated node makes its network namespaces, veths and bridge"),
    tool("nftables", "nft", "the simulated node's Services, NAT as kube-proxy does it"),
    tool("iptables", "iptables-restore", "the same by iptables, which most kube-proxies use"),
    tool("util-linux", "nsenter", "runs the simulated pods' processes in their namespaces"),
    tool("procps", "ps", "shows what the simulated node left running when a test fails"),
    tool("curl", "curl", "reads /metrics and /status as the README's examples do"),
    tool("softflowd", "softflowd", "the flow exporter whose price a connection's is held against"),
    tool("libbpf-tools", "opensnoop", "opensnoop, whose price a secret open's is held against"),
    tool("conntrack", "conntrack", "whose events the bench counts until it misses the first"),
    tool(
        "prometheus",
        "promtool",
        "promtool checks /metrics; a real Prometheus scrapes it in a test",
    ),
    tool("qemu-system-x86", "qemu-system-x86_64", "emulates machines that run stock kernels"),
    // Not any busybox: nothing else is inside of the emulated machine.
    package("busybox-static", "mounts and powers off inside of the emulated machines"),
    tool("xz-utils", "xz", "unpacks the modules that the emulated machines load"),
    tool("cpio", "cpio", "packs the only file system of the emulated machines"),
    tool(
        "golang-go",
        "go",
        "builds the real API server of the cluster tier, or fetches the Go for it",
    ),
    package("libfaketime", "sets the agent's clock, and no other, in a test of the cluster tier"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{LLVM_MAJOR, Need, PACKAGES};

    #[test]
    fn every_package_stands_once_and_says_why() {
        let names: BTreeSet<_> = PACKAGES.iter().map(|need| need.package).collect();
        assert_eq!(names.len(), PACKAGES.len());
        assert!(PACKAGES.iter().all(|need| need.reason.len() > 20));
    }

    #[test]
    fn the_llvm_package_is_the_one_that_bpf_linker_is_built_against() {
        let package = format!("llvm-{LLVM_MAJOR}-dev");
        assert!(PACKAGES.iter().any(|need| need.package == package));
    }

    #[test]
    fn a_need_is_met_by_its_package_or_by_its_program() {
        let need = |program| Need {
            package: "some-package",
            program,
            is_for_debian_compiler: false,
            reason: "a test",
        };
        let none = BTreeSet::new();
        assert!(need(None).is_present(&BTreeSet::from(["some-package".to_string()])));
        assert!(need(Some("sh")).is_present(&none));
        assert!(!need(Some("no-such-program-anywhere")).is_present(&none));
        assert!(!need(None).is_present(&none));
    }
}
