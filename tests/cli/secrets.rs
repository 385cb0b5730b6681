//! `parapet report secrets` over saved evidence, and what is asked of it wrongly.
//!
//! In: files in `cases/secrets`. Out: what was printed. It needs no root and no cluster.

use super::{Done, parapet};

const FINDINGS: &str = "\
Read by others than the containers that mount it:
SECRET                 OF        READ BY                    WHICH IS           PROCESS                                        KEYS      USES     FIRST                 LAST
shop/db-creds          shop/api  ops/debug container shell  other pod          =cmd|calc as a\\u{1b}[31mb\\nc, uid 0, pid 4711  password  1 open   2026-11-23T11:39:00Z  2026-11-23T11:39:50Z
service account token  shop/api  shop/api container proxy   sibling container  envoy, uid 101                                 token     2 opens  2026-11-23T11:39:00Z  2026-11-23T11:39:50Z

Mounted:
SECRET         OF        HOW     CONTAINERS  PODS  STATE                                KEYS                         FIRST READ            LAST READ
shop/db-creds  shop/api  volume  main        2     read, 1 container on an old version  read: password; never: user  2026-11-23T09:36:00Z  2026-11-23T11:39:50Z
shop/tls       shop/web  volume  main        2     never read in 2h 5m, 2 starts seen

Still on an old version after a rotation:
SECRET         OF        CONTAINER  READ LAST                        CURRENT                          SINCE
shop/db-creds  shop/api  main       ..2026_11_23_10_00_00.123456789  ..2026_11_23_11_00_00.987654321  2026-11-23T11:00:00Z

Service account tokens, which automountServiceAccountToken: false takes away:
TOKEN OF  SERVICE ACCOUNT  MOUNTED BY  STATE                               READ BY  SAY SO IN
shop/web  default          default     never read in 2h 5m, 2 starts seen           the pod template of Deployment shop/web, or service account shop/default if none of its pods needs it

secrets read by others: 2, mounted and never read: 1, containers on an old version: 1, tokens that nobody reads: 1; since 2026-11-23T09:35:00.000Z
";

const FOREIGN_CSV: &str = "\
record,secret_kind,secret,key,owner_namespace,owner_kind,owner,way,containers,pods,state,relation,reader_namespace,reader_kind,reader,container,program,comm,uid,pid,opens,reads,maps,held,first_seen,last_seen,watched_since,watched_seconds,starts_seen,has_gaps,version_read,version_current,service_account,mounted_by,is_candidate,nodes
read,secret,db-creds,password,shop,Deployment,api,,,,,other_pod,ops,Deployment,debug,shell,'=cmd|calc,a\\u{1b}[31mb\\nc,0,4711,1,0,0,0,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.123456789,,,,,
read,service_account_token,,token,shop,Deployment,api,,,,,sibling,shop,Deployment,api,proxy,envoy,envoy,101,,2,0,0,0,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.123456789,,,,,
";

const FOREIGN_MARKDOWN: &str = "\
### Read by others than the containers that mount it

| secret | of | read by | which is | process | keys | uses | first | last |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| shop/db-creds | shop/api | ops/debug container shell | other pod | =cmd\\|calc as a\\\\u{1b}\\[31mb\\\\nc, uid 0, pid 4711 | password | 1 open | 2026-11-23T11:39:00Z | 2026-11-23T11:39:50Z |

- secrets read by others: 1; since 2026-11-23T09:35:00.000Z
";

fn report(arguments: &str) -> Done {
    parapet(&format!("report secrets --evidence secrets/seen.json {arguments}"), "")
}

fn printed(done: &Done, out: &str) {
    let expected = Done { code: 0, out: out.to_owned(), err: String::new() };
    assert_eq!(*done, expected);
}

fn refused(arguments: &str, code: i32, err: &str) {
    let expected = Done { code, out: String::new(), err: err.to_owned() };
    assert_eq!(parapet(arguments, ""), expected);
}

#[test]
fn findings_say_who_ought_not_to_have_read_what_and_what_can_go() {
    printed(&report("--only findings"), FINDINGS);
}

#[test]
fn names_of_processes_are_text_in_every_form() {
    printed(&report("--only foreign-reads -o csv"), &FOREIGN_CSV.replace('\n', "\r\n"));
    let one = report("--secret shop/db-creds --only foreign-reads -o markdown");
    printed(&one, FOREIGN_MARKDOWN);
}

#[test]
fn json_is_evidence_again() {
    let saved = report("--secret db-creds --only foreign-reads -o json");
    let again = parapet("report secrets --evidence - -o markdown --only foreign-reads", &saved.out);
    printed(&again, FOREIGN_MARKDOWN);
    let whole = parapet("report secrets --evidence - --only findings", &report("-o json").out);
    printed(&whole, FINDINGS);
}

#[test]
fn nothing_found_is_no_failure_and_says_of_what() {
    let out = "\
no secret of that name was seen
secrets read by others: 0, mounted and never read: 0, containers on an old version: 0, tokens that nobody reads: 0, unobservable: 0; since 2026-11-23T09:35:00.000Z
";
    printed(&report("--secret shop/db-cred"), out);
    let out = "\
no such secret was seen
tokens that nobody reads: 0; since 2026-11-23T09:35:00.000Z
";
    printed(&report("--namespace data --only token-candidates"), out);
}

/// Evidence of an agent that did not watch secrets is not evidence of nobody reading any.
#[test]
fn evidence_of_before_is_refused() {
    let err = "error: nothing is known of secrets: the report is of an agent that did not watch \
               them, or of `parapet flows`\n";
    refused("report secrets --evidence check/seen.json", 1, err);
}

#[test]
fn wrong_usage_says_what_is_right() {
    let more = "\n\nFor more information, try '--help'.\n";
    let usage = |arguments: &str, err: &str| refused(arguments, 2, &format!("error: {err}{more}"));
    usage(
        "report secrets --secret a/b/c",
        "invalid value 'a/b/c' for '--secret <NAME>': write a Secret as name or namespace/name, or \
         a file of the node by its whole path",
    );
    usage(
        "report secrets --only x",
        "invalid value 'x' for '--only <WHAT>'\n  [possible values: findings, foreign-reads, \
         never-read, stale, token-candidates, unobservable]",
    );
    usage(
        "run --watch-file pki",
        "invalid value 'pki' for '--watch-file <PATH>': write the whole path, from / on",
    );
    usage(
        "doctor --kubelet-root kubelet",
        "invalid value 'kubelet' for '--kubelet-root <DIR>': write the whole path, from / on",
    );
    usage(
        "run --kubelet-cgroup /",
        "invalid value '/' for '--kubelet-cgroup <UNIT>': write its path below the root cgroup, \
         such as system.slice/kubelet.service (systemctl show -p ControlGroup kubelet)",
    );
}

#[test]
fn help_names_the_questions_people_have() {
    let done = parapet("report secrets --help", "");
    for taught in [
        "parapet report secrets --only findings\n",
        "parapet report secrets --secret shop/db-creds --cluster\n",
        "parapet report secrets --only never-read --only token-candidates -o csv\n",
        "subPath mounts are files and are seen.\n",
    ] {
        assert!(done.out.contains(taught), "{taught}{}", done.out);
    }
    let run = parapet("run --help", "");
    for flag in ["--kubelet-root", "--watch-file", "--kubelet-cgroup", "--runtime-cgroup"] {
        let variable = format!("PARAPET_{}", flag[2..].to_uppercase().replace('-', "_"));
        assert!(run.out.contains(&format!("{flag} <")) && run.out.contains(&variable), "{flag}");
    }
}
