//! One hand-made answer about secrets, and every projection of it as a whole.

use std::sync::Arc;

use parapet_core::flow::{Timestamp, Workload};
use parapet_core::secrets::{
    KeyUse, MountState, OTHER_READS, ReadCounts, Reader, Relation, SecretMount, SecretOwner,
    SecretRead, SecretSource, SecretWay, SecretsSnapshot, StaleReader, TokenMount, TokenUse,
};
use parapet_core::snapshot::Snapshot;

use super::{AT, SECOND};
use crate::export::report::Report;
use crate::export::report::render::secrets::{markdown, spreadsheet, table};
use crate::export::report::select::{Finding, SecretName, Selection};

fn ago(seconds: u64) -> Timestamp {
    Timestamp(AT.0 - seconds * SECOND)
}

fn workload(name: &str) -> Workload {
    Workload { kind: "Deployment".into(), name: name.into() }
}

fn owner(name: &str) -> SecretOwner {
    SecretOwner::Workload { namespace: "shop".into(), workload: workload(name) }
}

fn secret(name: &str) -> SecretSource {
    SecretSource::Secret { name: name.into() }
}

fn pod(name: &str, container: &str) -> Reader {
    let workload = workload(name);
    Reader::Pod { namespace: "shop".into(), workload, container: container.into() }
}

fn mount(name: &str, source: SecretSource, way: SecretWay, state: MountState) -> SecretMount {
    let is_seen = state != MountState::Unobservable;
    SecretMount {
        owner: owner(name),
        source,
        way,
        containers: vec!["main".into()],
        pods: 2,
        state,
        keys: Vec::new(),
        first_read: None,
        last_read: None,
        watched_since: is_seen.then(|| ago(7_500)),
        starts_seen: 3 * u64::from(is_seen),
        has_gaps: false,
        stale: Vec::new(),
    }
}

fn read(source: SecretSource, key: &str, relation: Relation, reader: Reader) -> SecretRead {
    SecretRead {
        owner: owner("api"),
        source,
        key: key.into(),
        relation,
        reader,
        program: "cat".into(),
        comm: "cat".into(),
        uid: 0,
        pid: 77,
        counts: ReadCounts { opens: 2, ..ReadCounts::default() },
        first_seen: ago(60),
        last_seen: ago(10),
        generation: "..2026_11_23_10_00_00.1".into(),
    }
}

fn token(name: &str, account: &str, mounted_by: TokenMount, state: MountState) -> TokenUse {
    TokenUse {
        owner: owner(name),
        service_account: account.into(),
        mounted_by,
        state,
        read_by: Vec::new(),
        watched_since: Some(ago(7_500)),
        starts_seen: 1,
        has_gaps: false,
        is_candidate: state == MountState::NeverRead,
    }
}

/// `api` reads one key of two and is stale, others read it too; `web` never reads; a job has it as
/// a variable.
fn mounts() -> Vec<SecretMount> {
    let key = |key: &str, state, last_read| KeyUse {
        key: key.into(),
        path: format!("db/{key}").into(),
        state,
        last_read,
    };
    let mut api = mount("api", secret("db"), SecretWay::SubPath, MountState::Read);
    api.keys = vec![
        key("pass", MountState::Read, Some(ago(10))),
        key("user", MountState::NeverRead, None),
    ];
    (api.first_read, api.last_read) = (Some(ago(60)), Some(ago(10)));
    api.stale = vec![StaleReader {
        container: "main".into(),
        read: "..2026_11_23_10_00_00.1".into(),
        current: "..2026_11_23_11_00_00.2".into(),
        since: ago(30),
    }];
    let mut web = mount("web", secret("tls"), SecretWay::Volume, MountState::NeverRead);
    web.has_gaps = true;
    let job = mount("job", secret("db"), SecretWay::Env, MountState::Unobservable);
    let vault = SecretSource::ServiceAccountToken { audience: "vault".into() };
    let vault = mount("web", vault, SecretWay::Volume, MountState::NeverRead);
    let plain = SecretSource::ServiceAccountToken { audience: "".into() };
    let plain = mount("web", plain, SecretWay::Volume, MountState::NeverRead);
    vec![api, job, vault, plain, web]
}

fn reads() -> Vec<SecretRead> {
    let unit = |unit: &str| Reader::Node { unit: unit.into() };
    let mut node = read(secret("db"), "pass", Relation::Node, unit("user.slice"));
    (node.program, node.comm, node.pid) = ("=evil|x".into(), "a\u{1b}[2Jb".into(), 0);
    node.counts = ReadCounts { opens: 1, reads: 1, maps: 1, held: 4 };
    let kubelet = unit("system.slice/kubelet.service");
    let map = SecretSource::ConfigMap { name: "kube-root-ca.crt".into() };
    let key = SecretSource::NodeFile { path: "/etc/kubernetes/pki".into() };
    let key = read(key, "/etc/kubernetes/pki/ca.key", Relation::Node, unit(""));
    let unknown = Reader::Unknown { reason: OTHER_READS.into() };
    let other = SecretSource::Unknown { volume: OTHER_READS.into() };
    let other = read(other, OTHER_READS, Relation::Unknown, unknown);
    vec![
        read(secret("db"), "pass", Relation::Own, pod("api", "main")),
        read(secret("db"), "pass", Relation::Sibling, pod("api", "proxy")),
        read(secret("db"), "pass", Relation::OtherPod, pod("thief", "sh")),
        read(secret("db"), "user", Relation::OtherPod, pod("thief", "sh")),
        read(secret("db"), "pass", Relation::Kubelet, kubelet),
        node,
        read(map, "ca.crt", Relation::Own, pod("api", "main")),
        SecretRead { owner: SecretOwner::Node, ..key },
        SecretRead { owner: SecretOwner::Unknown, program: OTHER_READS.into(), ..other },
    ]
}

pub(in crate::export) fn secrets() -> SecretsSnapshot {
    let mut used = token("api", "shared", TokenMount::Default, MountState::Read);
    used.read_by = vec!["main".into()];
    let mut unsure = token("new", "new", TokenMount::Default, MountState::NeverRead);
    (unsure.is_candidate, unsure.starts_seen) = (false, 0);
    let tokens = vec![
        used,
        token("job", "job", TokenMount::Pod, MountState::NeverRead),
        unsure,
        token("own", "own", TokenMount::ServiceAccount, MountState::NeverRead),
        token("plain", "plain", TokenMount::Default, MountState::NeverRead),
        token("web", "shared", TokenMount::Default, MountState::NeverRead),
    ];
    SecretsSnapshot {
        mounts: mounts().into_iter().map(Arc::new).collect(),
        reads: reads().into_iter().map(Arc::new).collect(),
        tokens: tokens.into_iter().map(Arc::new).collect(),
        unattributed: [("volume_not_known", 5)].into(),
    }
}

fn snapshot(secrets: SecretsSnapshot) -> Arc<Snapshot> {
    Arc::new(Snapshot { secrets: Arc::new(secrets), ..Snapshot::clone(&super::snapshot(vec![])) })
}

fn report() -> Report {
    Report::new(&snapshot(secrets()), None)
}

const TABLE: &str = "\
Read by others than the containers that mount it:
SECRET                   OF        READ BY                   WHICH IS           PROCESS                        KEYS        USES                                           FIRST                 LAST
shop/db                  shop/api  shop/thief container sh   other pod          cat, uid 0, pid 77             pass, user  4 opens                                        2026-11-23T11:39:00Z  2026-11-23T11:39:50Z
shop/db                  shop/api  shop/api container proxy  sibling container  cat, uid 0, pid 77             pass        2 opens                                        2026-11-23T11:39:00Z  2026-11-23T11:39:50Z
shop/db                  shop/api  node (user.slice)         node process       =evil|x as a\\u{1b}[2Jb, uid 0  pass        1 open, 1 read, 1 mapping, 4 times found open  2026-11-23T11:39:00Z  2026-11-23T11:39:50Z
others that had no room  unknown   others                    unknown            ? as cat, uid 0, pid 77        ?           2 opens                                        2026-11-23T11:39:00Z  2026-11-23T11:39:50Z

Mounted:
SECRET           OF        HOW      CONTAINERS  PODS  STATE                                                         KEYS                     FIRST READ            LAST READ
shop/db          shop/api  subPath  main        2     read, 1 container on an old version                           read: pass; never: user  2026-11-23T11:39:00Z  2026-11-23T11:39:50Z
shop/db          shop/job  env      main        2     unobservable: the runtime sets a variable, no file is opened
shop/tls         shop/web  volume   main        2     never read in 2h 5m, 3 starts seen, but some opens were lost
token for vault  shop/web  volume   main        2     never read in 2h 5m, 3 starts seen

Still on an old version after a rotation:
SECRET   OF        CONTAINER  READ LAST                CURRENT                  SINCE
shop/db  shop/api  main       ..2026_11_23_10_00_00.1  ..2026_11_23_11_00_00.2  2026-11-23T11:39:30Z

Service account tokens, which automountServiceAccountToken: false takes away:
TOKEN OF    SERVICE ACCOUNT  MOUNTED BY                 STATE                               READ BY  SAY SO IN
shop/job    job              pod says true              never read in 2h 5m, 1 start seen            the pod template of Deployment shop/job, which says true and wins over its service account
shop/own    own              service account says true  never read in 2h 5m, 1 start seen            service account shop/own, which says true, or the pod template of Deployment shop/own
shop/plain  plain            default                    never read in 2h 5m, 1 start seen            the pod template of Deployment shop/plain, or service account shop/plain if none of its pods needs it
shop/web    shared           default                    never read in 2h 5m, 1 start seen            the pod template of Deployment shop/web; not in service account shop/shared, shop/api may need it
shop/api    shared           default                    read                                main
shop/new    new              default                    never read in 2h 5m, no start seen           not sure: wait until a start was seen

Files of the node, and who read them:
SECRET               OF    READ BY             WHICH IS      PROCESS             KEYS                        USES     FIRST                 LAST
/etc/kubernetes/pki  node  node (root cgroup)  node process  cat, uid 0, pid 77  /etc/kubernetes/pki/ca.key  2 opens  2026-11-23T11:39:00Z  2026-11-23T11:39:50Z

Read by its own containers:
SECRET   OF        READ BY                  WHICH IS       PROCESS             KEYS  USES     FIRST                 LAST
shop/db  shop/api  shop/api container main  own container  cat, uid 0, pid 77  pass  2 opens  2026-11-23T11:39:00Z  2026-11-23T11:39:50Z

secrets read by others: 2, mounted and never read: 2, containers on an old version: 1, tokens that nobody reads: 4, unobservable: 1; since 2026-11-23T11:38:30.000Z
2 opens by the kubelet and the container runtime, whose work it is (--all)
2 opens of ConfigMaps and other files beside secrets, which are none (--all)
5 opens are not attributed: volume not known
";

const CSV: &str = "\
record,secret_kind,secret,key,owner_namespace,owner_kind,owner,way,containers,pods,state,relation,reader_namespace,reader_kind,reader,container,program,comm,uid,pid,opens,reads,maps,held,first_seen,last_seen,watched_since,watched_seconds,starts_seen,has_gaps,version_read,version_current,service_account,mounted_by,is_candidate,nodes
mount,secret,db,,shop,Deployment,api,sub_path,main,2,read,,,,,,,,,,,,,,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,2026-11-23T09:35:00.000Z,7500,3,false,,,,,,
key,secret,db,pass,shop,Deployment,api,sub_path,,,read,,,,,,,,,,,,,,,2026-11-23T11:39:50.000Z,2026-11-23T09:35:00.000Z,7500,3,false,,,,,,
key,secret,db,user,shop,Deployment,api,sub_path,,,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,3,false,,,,,,
stale,secret,db,,shop,Deployment,api,sub_path,,,,,,,,main,,,,,,,,,2026-11-23T11:39:30.000Z,,,,,,..2026_11_23_10_00_00.1,..2026_11_23_11_00_00.2,,,,
mount,secret,db,,shop,Deployment,job,env,main,2,unobservable,,,,,,,,,,,,,,,,,,,,,,,,,
mount,service_account_token,vault,,shop,Deployment,web,volume,main,2,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,3,false,,,,,,
mount,service_account_token,,,shop,Deployment,web,volume,main,2,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,3,false,,,,,,
mount,secret,tls,,shop,Deployment,web,volume,main,2,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,3,true,,,,,,
read,secret,db,pass,shop,Deployment,api,,,,,self,shop,Deployment,api,main,cat,cat,0,77,2,0,0,0,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.1,,,,,
read,secret,db,pass,shop,Deployment,api,,,,,sibling,shop,Deployment,api,proxy,cat,cat,0,77,2,0,0,0,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.1,,,,,
read,secret,db,pass,shop,Deployment,api,,,,,other_pod,shop,Deployment,thief,sh,cat,cat,0,77,2,0,0,0,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.1,,,,,
read,secret,db,user,shop,Deployment,api,,,,,other_pod,shop,Deployment,thief,sh,cat,cat,0,77,2,0,0,0,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.1,,,,,
read,secret,db,pass,shop,Deployment,api,,,,,node,,node,user.slice,,'=evil|x,a\\u{1b}[2Jb,0,,1,1,1,4,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.1,,,,,
read,node_file,/etc/kubernetes/pki,/etc/kubernetes/pki/ca.key,,node,,,,,,node,,node,,,cat,cat,0,77,2,0,0,0,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.1,,,,,
read,unknown,__other__,__other__,,unknown,,,,,,unknown,,unknown,__other__,,__other__,cat,0,77,2,0,0,0,2026-11-23T11:39:00.000Z,2026-11-23T11:39:50.000Z,,,,,..2026_11_23_10_00_00.1,,,,,
token,,,,shop,Deployment,api,,main,,read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,1,false,,,shared,default,false,
token,,,,shop,Deployment,job,,,,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,1,false,,,job,pod,true,
token,,,,shop,Deployment,new,,,,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,0,false,,,new,default,false,
token,,,,shop,Deployment,own,,,,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,1,false,,,own,service_account,true,
token,,,,shop,Deployment,plain,,,,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,1,false,,,plain,default,true,
token,,,,shop,Deployment,web,,,,never_read,,,,,,,,,,,,,,,,2026-11-23T09:35:00.000Z,7500,1,false,,,shared,default,true,
";

const MARKDOWN: &str = "\
### Read by others than the containers that mount it

| secret | of | read by | which is | process | keys | uses | first | last |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| shop/db | shop/api | shop/thief container sh | other pod | cat, uid 0, pid 77 | pass, user | 4 opens | 2026-11-23T11:39:00Z | 2026-11-23T11:39:50Z |
| shop/db | shop/api | shop/api container proxy | sibling container | cat, uid 0, pid 77 | pass | 2 opens | 2026-11-23T11:39:00Z | 2026-11-23T11:39:50Z |
| shop/db | shop/api | node (user.slice) | node process | =evil\\|x as a\\\\u{1b}\\[2Jb, uid 0 | pass | 1 open, 1 read, 1 mapping, 4 times found open | 2026-11-23T11:39:00Z | 2026-11-23T11:39:50Z |

- secrets read by others: 1; since 2026-11-23T11:38:30.000Z
- 5 opens are not attributed: volume not known
";

#[test]
fn a_table_says_who_read_what_and_who_never_did() {
    assert_eq!(table(&report(), &Selection::default(), false), TABLE);
}

#[test]
fn a_spreadsheet_has_a_line_for_everything_and_no_formula() {
    let csv = spreadsheet::csv(&report(), &Selection::default(), false);
    assert_eq!(csv, CSV.replace('\n', "\r\n"));
}

#[test]
fn markdown_has_what_is_asked_for_and_no_markup_of_others() {
    let selection = Selection {
        secret: Some("shop/db".parse().unwrap()),
        only: vec![Finding::ForeignReads],
        namespace: None,
    };
    assert_eq!(markdown(&report(), &selection, false), MARKDOWN);
}

#[test]
fn json_is_stable_and_reads_back() {
    let report = report();
    let value = serde_json::to_value(&report).unwrap();
    let owner = serde_json::json!({
        "kind": "workload", "namespace": "shop",
        "workload": {"kind": "Deployment", "name": "api"},
    });
    let expected = [
        serde_json::json!({
            "owner": owner, "source": {"kind": "secret", "name": "db"}, "way": "sub_path",
            "containers": ["main"], "pods": 2, "state": "read",
            "keys": [
                {"key": "pass", "path": "db/pass", "state": "read",
                 "last_read": "2026-11-23T11:39:50.000Z"},
                {"key": "user", "path": "db/user", "state": "never_read", "last_read": ""},
            ],
            "first_read": "2026-11-23T11:39:00.000Z", "last_read": "2026-11-23T11:39:50.000Z",
            "watched_since": "2026-11-23T09:35:00.000Z", "watched_seconds": 7500,
            "starts_seen": 3, "has_gaps": false,
            "stale": [{"container": "main", "read": "..2026_11_23_10_00_00.1",
                       "current": "..2026_11_23_11_00_00.2",
                       "since": "2026-11-23T11:39:30.000Z"}],
        }),
        serde_json::json!({
            "owner": owner, "source": {"kind": "secret", "name": "db"}, "key": "pass",
            "relation": "self",
            "reader": {"kind": "pod", "namespace": "shop", "container": "main",
                       "workload": {"kind": "Deployment", "name": "api"}},
            "program": "cat", "comm": "cat", "uid": 0, "pid": 77,
            "counts": {"opens": 2, "reads": 0, "maps": 0, "held": 0},
            "first_seen": "2026-11-23T11:39:00.000Z", "last_seen": "2026-11-23T11:39:50.000Z",
            "generation": "..2026_11_23_10_00_00.1",
        }),
        serde_json::json!({
            "owner": owner, "service_account": "shared", "mounted_by": "default", "state": "read",
            "read_by": ["main"], "watched_since": "2026-11-23T09:35:00.000Z",
            "watched_seconds": 7500, "starts_seen": 1, "has_gaps": false, "is_candidate": false,
        }),
    ];
    let firsts = ["mounts", "reads", "tokens"].map(|rows| value["secrets"][rows][0].clone());
    assert_eq!(firsts, expected);
    let unattributed = serde_json::json!({"volume_not_known": 5});
    assert_eq!(value["secrets"]["unattributed"], unattributed);
    assert_eq!(serde_json::from_value::<Report>(value).unwrap(), report);
}

#[test]
fn evidence_of_before_is_read_and_is_not_taken_for_nothing_seen() {
    let mut value = serde_json::to_value(report()).unwrap();
    value.as_object_mut().unwrap().remove("secrets");
    let older: Report = serde_json::from_value(value).unwrap();
    assert_eq!(older.secrets, None);
    let said = "nothing is known of secrets: whoever made this report did not watch them\n";
    assert_eq!(table(&older, &Selection::default(), false), said);
    let news = Report::new(&snapshot(secrets()), Some(Timestamp(0)));
    assert_eq!(news.secrets, None);
}

#[test]
fn a_selection_keeps_whole_rows() {
    let secrets = report().secrets.unwrap();
    let sizes = |namespace: Option<&str>, secret: Option<&str>, only: &[Finding]| {
        let selection = Selection {
            namespace: namespace.map(str::to_owned),
            secret: secret.map(|name| name.parse().unwrap()),
            only: only.to_vec(),
        };
        let chosen = selection.of(&secrets);
        (chosen.mounts.len(), chosen.reads.len(), chosen.tokens.len())
    };
    assert_eq!(sizes(None, None, &[]), (5, 9, 6));
    assert_eq!(sizes(Some("shop"), None, &[]), (5, 7, 6));
    assert_eq!(sizes(Some("data"), None, &[]), (0, 0, 0));
    assert_eq!(sizes(None, Some("db"), &[]), (2, 6, 0));
    assert_eq!(sizes(None, Some("shop/db"), &[]), (2, 6, 0));
    assert_eq!(sizes(None, Some("data/db"), &[]), (0, 0, 0));
    assert_eq!(sizes(None, Some("/etc/kubernetes"), &[]), (0, 1, 0));
    assert_eq!(sizes(None, Some("/etc/kubernetes/pki/ca.key"), &[]), (0, 1, 0));
    assert_eq!(sizes(None, Some("/etc/kube"), &[]), (0, 0, 0));
    assert_eq!(sizes(None, None, &[Finding::ForeignReads]), (0, 5, 0));
    assert_eq!(sizes(None, None, &[Finding::NeverRead]), (3, 0, 0));
    assert_eq!(sizes(None, None, &[Finding::Stale]), (1, 0, 0));
    assert_eq!(sizes(None, None, &[Finding::TokenCandidates]), (0, 0, 4));
    assert_eq!(sizes(None, None, &[Finding::Unobservable]), (1, 0, 0));
    assert_eq!(sizes(None, None, &[Finding::Findings]), (4, 5, 4));
    for wrong in ["", "a/b/c", "/a/b/", "a/", "/"] {
        let parsed = wrong.parse::<SecretName>();
        let is_path = matches!(parsed, Ok(SecretName::Path(_)));
        assert_eq!((parsed.is_ok(), is_path), (wrong.starts_with('/'), wrong.starts_with('/')));
    }
}
