//! The running kernel's types in, what the programs that watch secret files need of them out. What
//! is missing costs the programs that need it, and never the agent.

use super::super::layout::{Argument, Member, Types, member};

/// What needs a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Part {
    /// Every program.
    All,
    /// The program at the end of system calls.
    Syscalls,
    /// The program at the end of io_uring requests.
    Ring,
    /// The probe of a function.
    Probe,
    /// The program that sees reads.
    Reads,
    /// The walk over mappings.
    Mappings,
}

const fn of(
    part: Part,
    global: &'static str,
    structure: &'static str,
    name: &'static str,
) -> (Part, Member) {
    (part, member(global, structure, name))
}

/// `struct pt_regs` and `struct thread_info` are the architecture's own.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [&str; 2] = ["orig_ax", "di"];
#[cfg(not(target_arch = "x86_64"))]
const REGISTERS: [&str; 2] = ["syscallno", "regs"];
#[cfg(target_arch = "x86_64")]
const COMPAT: &str = "status";
#[cfg(not(target_arch = "x86_64"))]
const COMPAT: &str = "flags";

const MEMBERS: [(Part, Member); 41] = [
    of(Part::Syscalls, "OFFSET_REGS_SYSCALL", "pt_regs", REGISTERS[0]),
    of(Part::Probe, "OFFSET_REGS_FIRST", "pt_regs", REGISTERS[1]),
    // It lies at the start of the task on both (CONFIG_THREAD_INFO_IN_TASK).
    of(Part::Syscalls, "OFFSET_THREAD_COMPAT", "thread_info", COMPAT),
    of(Part::Syscalls, "OFFSET_TASK_FILES", "task_struct", "files"),
    of(Part::All, "OFFSET_TASK_MM", "task_struct", "mm"),
    of(Part::All, "OFFSET_TASK_CRED", "task_struct", "cred"),
    of(Part::All, "OFFSET_TASK_COMM", "task_struct", "comm"),
    of(Part::All, "OFFSET_TASK_TGID", "task_struct", "tgid"),
    of(Part::All, "OFFSET_TASK_CGROUPS", "task_struct", "cgroups"),
    of(Part::Syscalls, "OFFSET_FILES_FDT", "files_struct", "fdt"),
    of(Part::Syscalls, "OFFSET_FDT_FD", "fdtable", "fd"),
    of(Part::Syscalls, "OFFSET_FDT_MAX", "fdtable", "max_fds"),
    of(Part::All, "OFFSET_MM_EXE_FILE", "mm_struct", "exe_file"),
    of(Part::All, "OFFSET_CRED_EUID", "cred", "euid"),
    of(Part::All, "OFFSET_CSS_SET_CGROUP", "css_set", "dfl_cgrp"),
    of(Part::All, "OFFSET_FILE_INODE", "file", "f_inode"),
    of(Part::All, "OFFSET_FILE_MODE", "file", "f_mode"),
    of(Part::All, "OFFSET_FILE_PATH", "file", "f_path"),
    of(Part::All, "OFFSET_PATH_DENTRY", "path", "dentry"),
    of(Part::All, "OFFSET_INODE_SB", "inode", "i_sb"),
    of(Part::All, "OFFSET_INODE_NUMBER", "inode", "i_ino"),
    of(Part::All, "OFFSET_INODE_MODE", "inode", "i_mode"),
    of(Part::All, "OFFSET_INODE_GENERATION", "inode", "i_generation"),
    of(Part::All, "OFFSET_SB_DEVICE", "super_block", "s_dev"),
    of(Part::All, "OFFSET_SB_ROOT", "super_block", "s_root"),
    of(Part::All, "OFFSET_SB_MAGIC", "super_block", "s_magic"),
    of(Part::All, "OFFSET_DENTRY_INODE", "dentry", "d_inode"),
    of(Part::All, "OFFSET_DENTRY_NAME", "dentry", "d_name"),
    of(Part::All, "OFFSET_DENTRY_PARENT", "dentry", "d_parent"),
    of(Part::All, "OFFSET_QSTR_NAME", "qstr", "name"),
    of(Part::Ring, "OFFSET_IO_KIOCB_OPCODE", "io_kiocb", "opcode"),
    of(Part::Ring, "OFFSET_IO_OPEN_SLOT", "io_open", "file_slot"),
    of(Part::Ring, "OFFSET_RING_FILES", "io_ring_ctx", "file_table"),
    of(Part::Ring, "OFFSET_FILE_TABLE_DATA", "io_file_table", "data"),
    of(Part::Ring, "OFFSET_RSRC_DATA_COUNT", "io_rsrc_data", "nr"),
    of(Part::Ring, "OFFSET_RSRC_DATA_NODES", "io_rsrc_data", "nodes"),
    of(Part::Ring, "OFFSET_RSRC_NODE_FILE", "io_rsrc_node", "file_ptr"),
    of(Part::Ring, "OFFSET_CQE_RESULT", "io_uring_cqe", "res"),
    of(Part::Reads, "OFFSET_KIOCB_FILE", "kiocb", "ki_filp"),
    of(Part::Reads, "OFFSET_KIOCB_POSITION", "kiocb", "ki_pos"),
    of(Part::Mappings, "OFFSET_VMA_FILE", "vm_area_struct", "vm_file"),
];

/// Linux 5.15; before, io_uring opened no file into a table of its own.
const SLOT: &str = "OFFSET_IO_OPEN_SLOT";
/// The way to the file in such a table, as it is since Linux 6.13.
const NODES: [&str; 5] = [
    "OFFSET_RING_FILES",
    "OFFSET_FILE_TABLE_DATA",
    "OFFSET_RSRC_DATA_COUNT",
    "OFFSET_RSRC_DATA_NODES",
    "OFFSET_RSRC_NODE_FILE",
];

/// Numbers of system calls that open files, natively and as 32-bit programs ask for them
/// (arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl), and the bits by which the kernel
/// knows the latter: `TS_COMPAT` of arch/x86/include/asm/thread_info.h.
#[cfg(target_arch = "x86_64")]
const NUMBERS: [(&str, u32); 11] = [
    ("SYSCALL_OPEN", 2),
    ("SYSCALL_CREAT", 85),
    ("SYSCALL_OPENAT", 257),
    ("SYSCALL_OPENAT2", 437),
    ("SYSCALL_OPEN_BY_HANDLE_AT", 304),
    ("COMPAT_OPEN", 5),
    ("COMPAT_CREAT", 8),
    ("COMPAT_OPENAT", 295),
    ("COMPAT_OPENAT2", 437),
    ("COMPAT_OPEN_BY_HANDLE_AT", 342),
    ("COMPAT_BITS", 0x0002),
];
/// The same of include/uapi/asm-generic/unistd.h and arch/arm64/tools/syscall_32.tbl, and
/// `TIF_32BIT` of arch/arm64/include/asm/thread_info.h.
#[cfg(not(target_arch = "x86_64"))]
const NUMBERS: [(&str, u32); 9] = [
    ("SYSCALL_OPENAT", 56),
    ("SYSCALL_OPENAT2", 437),
    ("SYSCALL_OPEN_BY_HANDLE_AT", 265),
    ("COMPAT_OPEN", 5),
    ("COMPAT_CREAT", 8),
    ("COMPAT_OPENAT", 322),
    ("COMPAT_OPENAT2", 437),
    ("COMPAT_OPEN_BY_HANDLE_AT", 371),
    ("COMPAT_BITS", 1 << 22),
];

/// Constants to hand over, and what could not be found.
pub(in super::super) struct Constants {
    pub(in super::super) values: Vec<(&'static str, u32)>,
    /// The number of `bpf_rdonly_cast`, on kernels that have it and the type to cast to.
    pub(in super::super) cast: Option<u32>,
    missing: Vec<(Part, String)>,
}

impl Constants {
    pub(in super::super) fn new(types: &Types<'_>) -> Self {
        let mut values = NUMBERS.to_vec();
        let mut missing = Vec::new();
        let wanted: Vec<Member> = MEMBERS.iter().map(|(_, member)| *member).collect();
        let (mut has_slot, mut has_nodes) = (1, 1);
        for ((part, member), found) in MEMBERS.iter().zip(types.find(&wanted)) {
            match found {
                Some(offset) => values.push((member.global, offset)),
                None if member.global == SLOT => has_slot = 0,
                None if NODES.contains(&member.global) => has_nodes = 0,
                None => missing.push((*part, member.shown())),
            }
        }
        values.push(("RING_HAS_SLOT", has_slot));
        values.push(("RING_HAS_NODES", has_nodes));
        match completion(&types.tracepoint("io_uring_complete")) {
            Ok(has_cqe) => values.push(("RING_HAS_CQE", u32::from(has_cqe))),
            Err(problem) => missing.push((Part::Ring, problem.to_owned())),
        }
        let cast = types.function("bpf_rdonly_cast").zip(types.structure("kiocb"));
        values.push(("HAS_CAST", u32::from(cast.is_some())));
        values.push(("CAST_TYPE", cast.map_or(0, |(_, structure)| structure)));
        Self { values, cast: cast.map(|(function, _)| function), missing }
    }

    /// Why this part cannot work.
    pub(in super::super) fn problem(&self, part: Part) -> Option<String> {
        let (_, what) = self.missing.iter().find(|(of, _)| *of == part || *of == Part::All)?;
        Some(format!("the kernel's BTF has no {what}"))
    }
}

/// Whether the tracepoint tells the completion itself, and not only its parts.
fn completion(arguments: &[Argument<'_>]) -> Result<bool, &'static str> {
    match arguments {
        [_, Argument::Pointer(""), Argument::Pointer("io_uring_cqe"), ..] => Ok(true),
        [_, Argument::Pointer(""), Argument::Other(_), Argument::Other("int"), ..] => Ok(false),
        _ => Err("io_uring_complete with a request and a result"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_completion_is_found_as_kernels_tell_it() {
        use Argument::{Other, Pointer};
        let ring = Pointer("io_ring_ctx");
        // Linux 6.18, 6.1 and 5.10.
        let newest = [ring, Pointer(""), Pointer("io_uring_cqe")];
        let middle = [Pointer(""), Pointer(""), Other("u64"), Other("int"), Other("unsigned int")];
        let oldest = [Pointer(""), Other("u64"), Other("long int")];
        assert_eq!(completion(&newest), Ok(true));
        assert_eq!(completion(&middle), Ok(false));
        assert!(completion(&oldest).is_err());
        assert!(completion(&[]).is_err());
    }

    #[test]
    fn a_kernel_without_types_costs_every_part() {
        let mut header = vec![0; 24];
        header[..2].copy_from_slice(&0xeb9f_u16.to_ne_bytes());
        header[4..8].copy_from_slice(&24_u32.to_ne_bytes());
        let constants = Constants::new(&Types::new(&header).unwrap());
        let problem = "the kernel's BTF has no pt_regs.orig_ax".to_owned();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(constants.problem(Part::Syscalls), Some(problem));
        }
        let problem = "the kernel's BTF has no task_struct.mm".to_owned();
        assert_eq!(constants.problem(Part::Reads), Some(problem));
    }
}
