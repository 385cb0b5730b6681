//! What the agent learns of its node without asking the cluster: cgroups, addresses, its name.
//!
//! In: procfs, cgroupfs, ctnetlink and the kubelet's folder. Out: where cgroup2 is, the cgroups
//! there are as records, the addresses of this network namespace, what its connection tracking
//! says, the volumes that hold secrets. It changes nothing and looks nothing up in Kubernetes
//! objects.

pub mod addresses;
pub mod cgroups;
pub mod conntrack;
pub mod mountinfo;
pub mod volumes;

/// The node's name as kubelet would derive it: the host name in lower case.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}
