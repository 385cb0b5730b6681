//! A load balancer in the socket layer, for tests: a cgroup and two addresses in, connections from
//! that cgroup to the one lead to the other. Gone when it is dropped.

use std::fs::File;
use std::net::SocketAddrV4;
use std::path::Path;

use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::{Ebpf, EbpfLoader};

use super::load::{OBJECT, chain};

/// The attached program.
pub struct Rewrite {
    _programs: Ebpf,
}

impl Rewrite {
    /// # Errors
    /// What the kernel refused.
    pub fn attach(cgroup: &Path, from: SocketAddrV4, to: SocketAddrV4) -> Result<Self, String> {
        let address = |end: SocketAddrV4| u32::from_ne_bytes(end.ip().octets());
        let port = |end: SocketAddrV4| u32::from(end.port().to_be());
        let (from_addr, from_port) = (address(from), port(from));
        let (to_addr, to_port) = (address(to), port(to));
        let mut programs = EbpfLoader::new()
            .override_global("REWRITE_FROM_ADDR", &from_addr, true)
            .override_global("REWRITE_FROM_PORT", &from_port, true)
            .override_global("REWRITE_TO_ADDR", &to_addr, true)
            .override_global("REWRITE_TO_PORT", &to_port, true)
            .load(OBJECT)
            .map_err(|error| chain(&error))?;
        let program = programs.program_mut("test_rewrite_connect").ok_or("not in the object")?;
        let program: &mut CgroupSockAddr =
            program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))?;
        program.load().map_err(|error| chain(&error))?;
        let root = File::open(cgroup).map_err(|error| error.to_string())?;
        program.attach(root, CgroupAttachMode::Single).map_err(|error| chain(&error))?;
        Ok(Self { _programs: programs })
    }
}
