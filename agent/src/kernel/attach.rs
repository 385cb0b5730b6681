//! Loaded programs in, attached ones out: each for as long as this agent lives, or with pins for
//! longer. Where an agent before us left a link, its program is exchanged for ours in one step, so
//! that no packet is seen by none or by both.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;

use aya::programs::links::FdLink;
use aya::programs::{
    BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, FEntry, Iter, KProbe, Lsm,
    Program,
};
use aya::{Btf, Ebpf};

use super::load::chain;
use super::pins::Pins;
use super::probes::{Hook, Probe};
use super::{syscall, ticks};

/// Loads one program into the kernel.
pub(super) fn verify(programs: &mut Ebpf, probe: &Probe, btf: &Btf) -> Result<(), String> {
    let program = find(programs, probe)?;
    let loaded = match probe.hook {
        Hook::Cgroup(_) | Hook::Clock => cgroup(program)?.load(),
        Hook::Tracepoint(name) => tracepoint(program)?.load(name, btf),
        Hook::Iterator(kind) => iterator(program)?.load(kind, btf),
        Hook::Lsm(name) => lsm(program)?.load(name, btf),
        Hook::Function(name) => function(program)?.load(name, btf),
        Hook::Probe(_) => kprobe(program)?.load(),
    };
    loaded.map_err(|error| chain(&error))
}

/// Loads and attaches one program. `is_first`: no agent before us left its programs here.
pub(super) fn attach(
    programs: &mut Ebpf,
    probe: &Probe,
    root: &File,
    btf: &Btf,
    pins: Option<&Pins>,
    is_first: bool,
) -> Result<(), String> {
    verify(programs, probe, btf)?;
    let program = find(programs, probe)?;
    match probe.hook {
        Hook::Cgroup(way) => attach_cgroup(cgroup(program)?, probe, root, way, pins),
        Hook::Tracepoint(_) => attach_tracepoint(tracepoint(program)?, probe, pins),
        Hook::Clock => ticks::set_clock(cgroup(program)?),
        // Programs that ran before us know more of these sockets than the iterator could tell.
        Hook::Iterator(_) if is_first => read(iterator(program)?),
        Hook::Iterator(_) => Ok(()),
        Hook::Lsm(_) | Hook::Function(_) | Hook::Probe(_) => attach_loaded(program, probe.hook),
    }
}

/// Loads and attaches one program for as long as this agent lives; iterators are only loaded.
pub(super) fn attach_here(programs: &mut Ebpf, probe: &Probe, btf: &Btf) -> Result<(), String> {
    verify(programs, probe, btf)?;
    attach_loaded(find(programs, probe)?, probe.hook)
}

fn attach_loaded(program: &mut Program, hook: Hook) -> Result<(), String> {
    let attached = match hook {
        Hook::Lsm(_) => lsm(program)?.attach().map(drop),
        Hook::Function(_) => function(program)?.attach().map(drop),
        Hook::Probe(name) => kprobe(program)?.attach(name, 0).map(drop),
        Hook::Tracepoint(_) => tracepoint(program)?.attach().map(drop),
        Hook::Iterator(_) | Hook::Cgroup(_) | Hook::Clock => Ok(()),
    };
    attached.map_err(|error| chain(&error))
}

fn attach_cgroup(
    program: &mut CgroupSkb,
    probe: &Probe,
    root: &File,
    way: CgroupSkbAttachType,
    pins: Option<&Pins>,
) -> Result<(), String> {
    if let Some(pins) = pins {
        // Of an agent that was killed before it could give its link the name: it counts already,
        // and a second one beside it would count everything twice.
        let _ = fs::rename(pins.new_link(probe.name), pins.link(probe.name));
    }
    if let Some(pins) = pins
        && let Ok(link) = syscall::pinned(&pins.link(probe.name))
    {
        let ours = program.fd().map_err(|error| chain(&error))?;
        // It fails if the watched cgroup was removed meanwhile: then the link is attached nowhere.
        if syscall::replace(link.as_fd(), ours.as_fd()).is_ok() {
            return Ok(());
        }
    }
    // A link: it coexists with whatever others attach, and the kernel takes no flags for it.
    let id = program.attach(root, way, CgroupAttachMode::Single).map_err(|error| chain(&error))?;
    let Some(pins) = pins else { return Ok(()) };
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    pin(link.try_into().map_err(|_| "the kernel made no link".to_owned())?, probe, pins)
}

/// Two of them may run for a moment; what they tell twice is the same.
fn attach_tracepoint(
    program: &mut BtfTracePoint,
    probe: &Probe,
    pins: Option<&Pins>,
) -> Result<(), String> {
    let id = program.attach().map_err(|error| chain(&error))?;
    let Some(pins) = pins else { return Ok(()) };
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    pin(FdLink::from(link), probe, pins)
}

/// Pins a link in the place of an older one.
fn pin(link: FdLink, probe: &Probe, pins: &Pins) -> Result<(), String> {
    let path = pins.link(probe.name);
    let beside = pins.new_link(probe.name);
    // Left by an agent that was killed here.
    let _ = fs::remove_file(&beside);
    link.pin(&beside).map_err(|error| chain(&error))?;
    fs::rename(&beside, &path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs a loaded iterator over everything there is.
pub(super) fn walk(programs: &mut Ebpf, probe: &Probe) -> Result<(), String> {
    read(iterator(find(programs, probe)?)?)
}

fn read(program: &mut Iter) -> Result<(), String> {
    let id = program.attach().map_err(|error| chain(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    let mut file = link.into_file().map_err(|error| chain(&error))?;
    file.read_to_end(&mut Vec::new()).map(drop).map_err(|error| error.to_string())
}

fn find<'a>(programs: &'a mut Ebpf, probe: &Probe) -> Result<&'a mut Program, String> {
    programs.program_mut(probe.name).ok_or_else(|| format!("{} is not in the object", probe.name))
}

fn cgroup(program: &mut Program) -> Result<&mut CgroupSkb, String> {
    program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
}

fn tracepoint(program: &mut Program) -> Result<&mut BtfTracePoint, String> {
    program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
}

fn lsm(program: &mut Program) -> Result<&mut Lsm, String> {
    program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
}

fn function(program: &mut Program) -> Result<&mut FEntry, String> {
    program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
}

fn kprobe(program: &mut Program) -> Result<&mut KProbe, String> {
    program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
}

fn iterator(program: &mut Program) -> Result<&mut Iter, String> {
    program.try_into().map_err(|error: aya::programs::ProgramError| chain(&error))
}
