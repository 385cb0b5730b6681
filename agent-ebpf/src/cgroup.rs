//! cgroups made and removed in, events out, so that a pod of a hundred milliseconds is still known
//! when its packets are judged. The event is written before the maker of the cgroup can put a
//! process in it.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use parapet_common::{CgroupEvent, EVENT_CGROUP_CREATED, EVENT_CGROUP_REMOVED};

use crate::{
    emit,
    maps::Offset,
    structs::{Pointer, read},
};

/// tracepoint cgroup:cgroup_mkdir(struct cgroup *, const char *path).
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_created(ctx: BtfTracePointContext) -> i32 {
    report(&ctx, EVENT_CGROUP_CREATED);
    0
}

/// tracepoint cgroup:cgroup_rmdir(struct cgroup *, const char *path).
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_removed(ctx: BtfTracePointContext) -> i32 {
    report(&ctx, EVENT_CGROUP_REMOVED);
    0
}

#[inline(always)]
fn report(ctx: &BtfTracePointContext, kind: u32) -> Option<()> {
    let cgroup: Pointer = ctx.arg(0);
    let path: *const u8 = ctx.arg(1);
    let root: Pointer = read(cgroup, Offset::CgroupRoot)?;
    let hierarchy_id: u32 = read(root, Offset::CgroupRootHierarchyId)?;
    // Version 1 hierarchies have ids of their own that would be mistaken for others.
    if hierarchy_id != 0 {
        return None;
    }
    let kn: Pointer = read(cgroup, Offset::CgroupKn)?;
    let cgroup_id: u64 = read(kn, Offset::KernfsNodeId)?;
    let level: u32 = read(cgroup, Offset::CgroupLevel)?;
    emit::cgroup(kind, CgroupEvent { cgroup_id, hierarchy_id, level }, path);
    Some(())
}
