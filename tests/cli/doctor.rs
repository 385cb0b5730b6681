//! `parapet doctor --cleanup` where there is nothing to clean up, and where there cannot be.
//!
//! In: folders that are on no BPF file system. Out: what was printed. It needs no root.

use super::{Done, parapet};

fn cleanup(arguments: &str, code: i32, out: &str, err: &str) {
    let done = parapet(&format!("doctor --cleanup {arguments}"), "");
    assert_eq!(done, Done { code, out: out.to_owned(), err: err.to_owned() });
}

#[test]
fn nothing_to_remove_is_no_failure() {
    let out = "nothing to remove: no agent left anything in /no/such/folder\n";
    cleanup("--pin-dir /no/such/folder", 0, out, "");
    let out = "{\n  \"removed\": []\n}\n";
    cleanup("--pin-dir /no/such/folder -o json", 0, out, "");
}

#[test]
fn a_folder_that_no_agent_can_have_used_is_refused() {
    let err =
        "error: cannot clean up /proc: it is not on a BPF file system, where no agent can pin\n";
    cleanup("--pin-dir /proc", 1, "", err);
    let err = "error: --cleanup needs the folder that `parapet run` was given: leave out --pin-dir \
               none, or name it\n";
    cleanup("--pin-dir none", 1, "", err);
}

#[test]
fn doctor_says_what_no_place_for_pins_costs_and_how_to_get_one() {
    let done = parapet("doctor --pin-dir /proc/parapet", "");
    let expected = "\
reduced pins (bpffs): /proc/parapet is not on a BPF file system
          without it: what passes while the agent restarts is not counted, and its reports begin anew
          to get it:  mount a BPF file system (mount -t bpf bpf /sys/fs/bpf), into the container too, or name a folder on one with --pin-dir
";
    assert!(done.out.contains(expected), "{}", done.out);
}

#[test]
fn doctor_says_what_of_secrets_is_seen_by_what_and_what_each_part_needs() {
    let done = parapet("doctor --kubelet-root /no/such/kubelet", "");
    for expected in [
        "\
reduced kubelet folder: /no/such/kubelet/pods: No such file or directory (os error 2)
          without it: no secret volume of a pod is watched: nobody is seen reading one
          to get it:  mount the node's kubelet folder into the container, or name it with --kubelet-root
",
        "\nOpens of secret files are seen by ",
        "\n  not seen: ",
        "\nWhat each part needs:\nPART ",
        " the kubelet's folder, with mountPropagation: HostToContainer ",
    ] {
        assert!(done.out.contains(expected), "{expected}{}", done.out);
    }
    let json = parapet("doctor -o json --kubelet-root /no/such/kubelet", "");
    for field in ["\"seen_by\": ", "\"cannot_see\": [", "\"parts\": ["] {
        assert!(json.out.contains(field), "{field}{}", json.out);
    }
}
