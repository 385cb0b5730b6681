//! Ways to a secret file that are meant to be overlooked: each is seen, or counted by its name.

use support::agent::Agent;
use support::reading::{Pass, Race, Turns, Use, Way};
use support::secret::SecretVolume;
use support::task::Task;

use super::{api, expect, opened, watch};
use crate::agent::{binary, new_node};

const OTHER: &str = "a/api db/pass <- other_pod b/web:main";
const NODE: &str = "a/api db/pass <- node system.slice/node.service";

/// A pod that does not mount the Secret uses a file of it three times in this way.
fn see(way: Way, opens: u64) {
    let mut node = new_node();
    let (_api, db) = api(&mut node);
    let web = node.pod(&support::pod::PodSpec::new("b", "web")).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    let counts = web.run(&Use::of(db.file("pass"), way, 3).task()).unwrap();
    assert_eq!((counts.attempts, counts.refused), (3, 0));
    // One more in the plain way, so that nothing is overlooked only because nobody waited.
    web.run(&Task::read(db.file("pass"), 1)).unwrap();
    expect(&agent, &[(OTHER, opens + 1)]);
}

#[test]
fn an_open_that_never_reads() {
    see(Way::OpenOnly, 3);
}

#[test]
fn a_path_that_is_held_is_no_use() {
    see(Way::PathOnly, 0);
}

#[test]
fn a_look_at_a_file_is_no_use() {
    see(Way::Status, 0);
}

#[test]
fn an_open_that_would_create() {
    see(Way::Create, 3);
}

#[test]
fn openat2() {
    see(Way::Openat2, 3);
}

#[test]
fn a_name_below_a_descriptor() {
    see(Way::BelowFolder, 3);
}

#[test]
fn open_by_handle_at() {
    see(Way::Handle, 3);
}

#[test]
fn io_uring_openat() {
    see(Way::Ring, 3);
}

#[test]
fn io_uring_openat2() {
    see(Way::Ring2, 3);
}

#[test]
fn a_symbolic_link() {
    see(Way::Symlink, 3);
}

#[test]
fn a_hard_link() {
    see(Way::HardLink, 3);
}

#[test]
fn a_bind_mount() {
    see(Way::BindMount, 3);
}

#[test]
fn a_path_opened_again_by_its_descriptor() {
    see(Way::Reopen, 3);
}

#[test]
fn a_mapping() {
    see(Way::Map, 3);
}

#[test]
fn io_uring_with_a_slot_of_its_own_is_seen_or_counted_as_not() {
    let mut node = new_node();
    let (_api, db) = api(&mut node);
    let web = node.pod(&support::pod::PodSpec::new("b", "web")).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    web.run(&Use::of(db.file("pass"), Way::RingSlot, 3).task()).unwrap();
    web.run(&Task::read(db.file("pass"), 1)).unwrap();
    // The kernel's way to these files since Linux 6.13.
    let types = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let can_tell = types.windows(13).any(|name| name == b"io_rsrc_node\0");
    let expected = if can_tell { (4, 0) } else { (1, 3) };
    let counted = |report: &support::report::Report| {
        let gap = report.lost.get("fixed_file").copied().unwrap_or_default();
        (report.secrets.counts(OTHER).opens, gap)
    };
    let report = agent.report_when(|report| counted(report) == expected).unwrap();
    assert_eq!(counted(&report), expected, "{:#?}", report.secrets.opens());
}

#[test]
fn the_root_folder_of_a_process() {
    let mut node = new_node();
    let (api, db) = api(&mut node);
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    let inside = api.spawn(&Task::serve_tcp(&[80])).unwrap();
    let task = Use::of(db.file("pass"), Way::RootOf(inside.pid()), 3).task();
    node.spawn_on_node(&task).unwrap().finish().unwrap();
    expect(&agent, &[(NODE, 3)]);
}

#[test]
fn a_file_mounted_by_itself_before_and_after_a_rotation() {
    let mut node = new_node();
    let spec = support::pod::PodSpec::new("a", "api").secret("db");
    let api = node.pod(&spec.mounts(&[("db", Some("pass"))])).unwrap();
    let db = SecretVolume::secret(&node, &api, "db", &[("pass", "p")]).unwrap();
    let alone = db.mount_file("main", 0, "pass").unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    api.run(&Task::read(&alone, 2)).unwrap();
    db.write(&[("pass", "2")]).unwrap();
    api.run(&Task::read(&alone, 3)).unwrap();
    let report = expect(&agent, &[("a/api db/pass <- self a/api:main", 5)]);
    let mount = report.secrets.mount("a/api db by sub_path").unwrap();
    assert_eq!(mount.state, "read");
}

#[test]
fn a_descriptor_passed_over_a_socket_is_found_by_the_sweep() {
    let mut node = new_node();
    let (api, db) = api(&mut node);
    let web = node.pod(&support::pod::PodSpec::new("b", "web")).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    let socket = node.folder().join("passed");
    let give = Pass::Give { path: db.file("pass"), socket: socket.clone() };
    let giving = api.spawn(&Task::Pass(give)).unwrap();
    let taking = web.spawn(&Task::Pass(Pass::Take { socket })).unwrap();
    giving.finish().unwrap();
    let is_held = |report: &support::report::Report| report.secrets.counts(OTHER).held > 0;
    let report = agent.report_when(is_held).unwrap();
    assert!(is_held(&report), "{:#?}", report.secrets);
    assert_eq!(report.secrets.counts("a/api db/pass <- self a/api:main").opens, 1);
    assert_eq!(report.secrets.counts(OTHER).opens, 0);
    taking.finish().unwrap();
}

#[test]
fn what_is_open_and_mapped_before_the_agent_starts_is_found() {
    let mut node = new_node();
    let (api, db) = api(&mut node);
    let web = node.pod(&support::pod::PodSpec::new("b", "web")).unwrap();
    let opened = web.spawn(&Use::of(db.file("pass"), Way::Open, 1).held().task()).unwrap();
    let mapped = api.spawn(&Use::of(db.file("user"), Way::Map, 1).held().task()).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    let own = "a/api db/user <- self a/api:main";
    let found = |report: &support::report::Report| {
        [OTHER, own].map(|read| report.secrets.counts(read).held > 0)
    };
    let report = agent.report_when(|report| found(report) == [true; 2]).unwrap();
    assert_eq!(found(&report), [true; 2], "{:#?}", report.secrets);
    opened.finish().unwrap();
    mapped.finish().unwrap();
}

/// A path that leads to a secret and to another file from moment to moment.
fn race(turns: Turns) {
    let mut node = new_node();
    let (_api, db) = api(&mut node);
    let web = node.pod(&support::pod::PodSpec::new("b", "web")).unwrap();
    let decoy = node.folder().join("decoy");
    std::fs::write(&decoy, "d").unwrap();
    let folder = node.folder().join("race");
    std::fs::create_dir(&folder).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 1);
    let race = Race { wanted: db.file("pass"), decoy, folder, rounds: 100_000, turns };
    let counts = web.run(&Task::Race(race)).unwrap();
    assert_eq!(counts.attempts + counts.refused, 100_000);
    assert!(counts.answered > 100 && counts.answered < 99_900, "no race: {counts:?}");
    opened(&agent, &[(OTHER, counts.answered)]);
}

#[test]
fn a_name_that_changes_while_it_is_opened() {
    race(Turns::Names);
}

#[test]
fn an_argument_that_changes_while_it_is_read() {
    race(Turns::Argument);
}
