//! Who reads which secret: a small node, and what is said of each read on it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::flow::Workload;
use crate::object::Pod;
use crate::secrets::{
    FileId, MountState, ReadCounts, ReadRecord, Reader, ReaderId, ReaderSeen, Relation,
    SecretMount, SecretOwner, SecretRead, SecretSource, SecretWay, SecretsSnapshot, TokenMount,
    TokenUse, VolumeFile, VolumeId, VolumeOwner, VolumePlugin,
};

mod bounds;
mod order;
mod rotation;

/// The Secret volume of `api`, and the one with its token.
const TLS: VolumeId = VolumeId { device: 41, generation: 7_001 };
const TOKEN: VolumeId = VolumeId { device: 42, generation: 7_002 };
/// Cgroups of containers and units.
const API_MAIN: u64 = 10;
const API_SIDE: u64 = 11;
const WEB: u64 = 20;
const KUBELET: u64 = 30;
const CONTAINERD: u64 = 31;
const SHELL: u64 = 32;
/// Whose path nobody told.
const NOBODY: u64 = 99;

const SECOND: u64 = 1_000_000_000;
/// The second that every time of these tests begins with.
const START: u64 = 1_800_000_000;

/// So many seconds after the start.
fn s(seconds: u64) -> Timestamp {
    Timestamp((START + seconds) * SECOND)
}

/// The same as the API server writes it.
fn rfc3339(seconds: u64) -> String {
    // 1 800 000 000 is 2027-01-15T08:00:00Z.
    format!("2027-01-15T08:{:02}:{:02}Z", seconds / 60, seconds % 60)
}

fn pod(value: Value) -> Change {
    let parts = Some(Box::new(read(value.clone())));
    Change::Applied(Object::Pod(Box::new(Pod { parts, ..read(value) })))
}

/// `api` of StatefulSet `api`: `main` mounts both volumes, `side` mounts none.
fn api_object() -> Value {
    json!({
        "metadata": {"name": "api-0", "namespace": "shop", "uid": "uid-api",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "api",
                "uid": "uid-set", "controller": true}]},
        "spec": {
            "nodeName": "n1", "serviceAccountName": "api",
            "volumes": [
                {"name": "tls", "secret": {"secretName": "api-tls"}},
                {"name": "kube-api-access-x", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "kube-root-ca.crt",
                        "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace",
                        "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}},
                {"name": "scratch", "emptyDir": {}}],
            "imagePullSecrets": [{"name": "registry"}],
            "containers": [
                {"name": "main", "env": [
                    {"name": "PLAIN", "value": "never read"},
                    {"name": "PASSWORD", "valueFrom":
                        {"secretKeyRef": {"name": "db", "key": "password"}}}],
                 "volumeMounts": [
                    {"name": "tls", "mountPath": "/tls"},
                    {"name": "kube-api-access-x",
                     "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]},
                {"name": "side", "envFrom": [{"secretRef": {"name": "db"}}], "env": null}]},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "main", "containerID": "containerd://c-main",
             "state": {"running": {"startedAt": rfc3339(5)}}},
            {"name": "side", "containerID": "containerd://c-side",
             "state": {"running": {"startedAt": rfc3339(5)}}}]},
    })
}

fn web_object() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "front", "uid": "uid-web"},
        "spec": {"nodeName": "n1", "automountServiceAccountToken": false,
            "containers": [{"name": "web"}]},
        "status": {"containerStatuses": [{"name": "web", "containerID": "containerd://c-web"}]},
    })
}

fn file(inode: u64, path: &str, generation: &str) -> VolumeFile {
    VolumeFile { inode, path: path.into(), generation: generation.into() }
}

fn volume(id: VolumeId, uid: &str, name: &str, files: Vec<VolumeFile>) -> VolumeFacts {
    let plugin = match name {
        "tls" => VolumePlugin::Secret,
        _ => VolumePlugin::Projected,
    };
    VolumeFacts {
        id,
        owner: VolumeOwner::Pod { uid: uid.into(), volume: name.into(), plugin },
        generation: files.first().map(|file| file.generation.to_string()).unwrap_or_default(),
        files,
        mounted_at: Some(s(1)),
        watched_since: s(2),
    }
}

fn tls(generation: &str, first_inode: u64) -> VolumeFacts {
    let files =
        [file(first_inode, "tls.crt", generation), file(first_inode + 1, "tls.key", generation)];
    volume(TLS, "uid-api", "tls", files.into())
}

fn token() -> VolumeFacts {
    let names = ["ca.crt", "namespace", "token"];
    let files = names.iter().zip(21..).map(|(name, inode)| file(inode, name, "..t1"));
    volume(TOKEN, "uid-api", "kube-api-access-x", files.collect())
}

fn volumes() -> Vec<VolumeFacts> {
    vec![tls("..g1", 11), token()]
}

fn reader(cgroup_id: u64) -> ReaderId {
    ReaderId { cgroup_id, program: (8, 1_000 + cgroup_id), uid: 1_000 }
}

/// So many opens in this second.
fn reads(volume: VolumeId, inode: u64, cgroup_id: u64, opens: u64, at: u64) -> Record {
    Record::Read(ReadRecord {
        file: FileId { volume, inode },
        reader: reader(cgroup_id),
        counts: ReadCounts { opens, reads: opens, ..ReadCounts::default() },
        since: s(at),
        last_seen: s(at),
    })
}

fn seen(volume: VolumeId, inode: u64, cgroup_id: u64, at: u64) -> Record {
    Record::Reader(ReaderSeen {
        file: FileId { volume, inode },
        reader: reader(cgroup_id),
        at: s(at),
        pid: 4_000 + u32::try_from(cgroup_id).expect("small"),
        comm: format!("comm-{cgroup_id}"),
        program: format!("program-{cgroup_id}"),
        folder: "..g1".to_owned(),
        name: "told".to_owned(),
    })
}

fn cgroups() -> Vec<Record> {
    let paths = [
        (API_MAIN, "/kubepods/poduid-api/c-main"),
        (API_SIDE, "/kubepods/poduid-api/c-side"),
        (WEB, "/kubepods/besteffort/poduid-web/c-web"),
        (KUBELET, "/system.slice/kubelet.service"),
        (CONTAINERD, "/system.slice/containerd.service"),
        (SHELL, "/user.slice/user-0.slice/session-1.scope"),
    ];
    let made = |(id, path): (u64, &str)| Record::CgroupCreated {
        cgroup_id: id,
        path: path.to_owned(),
        at: s(0),
    };
    paths.into_iter().map(made).collect()
}

fn known() -> Vec<Record> {
    [API_MAIN, API_SIDE, WEB, KUBELET, CONTAINERD, SHELL, NOBODY]
        .map(|cgroup| seen(TLS, 11, cgroup, 3))
        .into()
}

/// Everything is known, and nothing was read yet.
fn ready() -> Engine {
    let mut engine = Engine::new(EngineConfig::default());
    engine.step(facts());
    engine.step(Input::Records(cgroups()));
    engine.step(Input::Volumes(volumes(), s(2)));
    engine.step(Input::Cluster(lists([pod(api_object()), pod(web_object())]), s(2)));
    engine.step(Input::Records(known()));
    engine
}

fn answers(engine: &mut Engine) -> Arc<SecretsSnapshot> {
    engine.snapshot().secrets.clone()
}

fn api() -> SecretOwner {
    let workload = Workload { kind: "StatefulSet".into(), name: "api".into() };
    SecretOwner::Workload { namespace: "shop".into(), workload }
}

fn api_tls() -> SecretSource {
    SecretSource::Secret { name: "api-tls".into() }
}

fn by_api(container: &str) -> Reader {
    let workload = Workload { kind: "StatefulSet".into(), name: "api".into() };
    Reader::Pod { namespace: "shop".into(), workload, container: container.into() }
}

fn by_web(container: &str) -> Reader {
    let workload = Workload { kind: "Pod".into(), name: "web".into() };
    Reader::Pod { namespace: "front".into(), workload, container: container.into() }
}

/// A read of `tls.key` in its whole.
fn row(relation: Relation, reader: Reader, cgroup: u64, opens: u64, at: (u64, u64)) -> SecretRead {
    SecretRead {
        owner: api(),
        source: api_tls(),
        key: "tls.key".into(),
        relation,
        reader,
        program: format!("program-{cgroup}").into(),
        comm: format!("comm-{cgroup}").into(),
        uid: 1_000,
        pid: 4_000 + u32::try_from(cgroup).expect("small"),
        counts: ReadCounts { opens, reads: opens, ..ReadCounts::default() },
        first_seen: s(at.0),
        last_seen: s(at.1),
        generation: "..g1".into(),
    }
}

fn rows(snapshot: &SecretsSnapshot) -> Vec<SecretRead> {
    snapshot.reads.iter().map(|read| (**read).clone()).collect()
}

fn mount(snapshot: &SecretsSnapshot, source: &SecretSource) -> SecretMount {
    let mut found = snapshot.mounts.iter().filter(|mount| mount.source == *source);
    (**found.next().expect("such a mount")).clone()
}

fn units(pairs: &[(&'static str, u64)]) -> BTreeMap<&'static str, u64> {
    pairs.iter().copied().collect()
}

#[test]
fn each_reader_is_told_by_what_it_is_to_the_owner() {
    let mut engine = ready();
    let readers = [API_MAIN, API_SIDE, WEB, KUBELET, CONTAINERD, SHELL];
    let records = readers.iter().map(|cgroup| reads(TLS, 12, *cgroup, *cgroup, 6));
    engine.step(Input::Records(records.collect()));
    let unit = |unit: &str| Reader::Node { unit: unit.into() };
    let expected = vec![
        row(Relation::Own, by_api("main"), API_MAIN, API_MAIN, (6, 6)),
        row(Relation::Sibling, by_api("side"), API_SIDE, API_SIDE, (6, 6)),
        row(Relation::OtherPod, by_web("web"), WEB, WEB, (6, 6)),
        row(Relation::Node, unit("user.slice"), SHELL, SHELL, (6, 6)),
        row(Relation::Kubelet, unit("system.slice/kubelet.service"), KUBELET, KUBELET, (6, 6)),
        row(
            Relation::Runtime,
            unit("system.slice/containerd.service"),
            CONTAINERD,
            CONTAINERD,
            (6, 6),
        ),
    ];
    let snapshot = answers(&mut engine);
    assert_eq!(rows(&snapshot), expected);
    assert_eq!(snapshot.unattributed, units(&[]));
}

#[test]
fn reads_that_are_alike_are_one_row_and_the_same_answer_until_something_changes() {
    let mut engine = ready();
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 2, 8)]));
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 3, 6)]));
    let first = answers(&mut engine);
    assert_eq!(rows(&first), [row(Relation::Own, by_api("main"), API_MAIN, 5, (6, 8))]);
    engine.step(Input::Tick(s(9)));
    assert!(Arc::ptr_eq(&first, &answers(&mut engine)), "nothing changed");
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 1, 9)]));
    let second = answers(&mut engine);
    assert_eq!(rows(&second), [row(Relation::Own, by_api("main"), API_MAIN, 6, (6, 9))]);
    assert_eq!(rows(&first), [row(Relation::Own, by_api("main"), API_MAIN, 5, (6, 8))]);
}

#[test]
fn a_projected_volume_is_told_apart_by_its_parts() {
    let mut engine = ready();
    let records = (21..24).map(|inode| reads(TOKEN, inode, API_MAIN, 1, 6));
    engine.step(Input::Records(records.collect()));
    let told: Vec<_> =
        rows(&answers(&mut engine)).into_iter().map(|row| (row.source, row.key)).collect();
    let token = SecretSource::ServiceAccountToken { audience: "".into() };
    let expected = [
        (token, "token".into()),
        (SecretSource::ConfigMap { name: "kube-root-ca.crt".into() }, "ca.crt".into()),
        (SecretSource::DownwardApi, "namespace".into()),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_a_workload_has_is_told_with_what_was_read_of_it() {
    let mut engine = ready();
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 2, 7), reads(TLS, 11, WEB, 1, 7)]));
    let snapshot = answers(&mut engine);
    let key = |name: &str, at: Option<u64>| crate::secrets::KeyUse {
        key: name.into(),
        path: name.into(),
        state: if at.is_some() { MountState::Read } else { MountState::NeverRead },
        last_read: at.map(s),
    };
    let unseen = |name: &str, way, containers: &[&str]| SecretMount {
        owner: api(),
        source: SecretSource::Secret { name: name.into() },
        way,
        containers: containers.iter().map(|name| (*name).into()).collect(),
        pods: 1,
        state: MountState::Unobservable,
        keys: Vec::new(),
        first_read: None,
        last_read: None,
        watched_since: None,
        starts_seen: 0,
        has_gaps: false,
        stale: Vec::new(),
    };
    let seen = |source, state, keys, read: Option<u64>| SecretMount {
        source,
        way: SecretWay::Volume,
        containers: vec!["main".into()],
        state,
        keys,
        first_read: read.map(s),
        last_read: read.map(s),
        watched_since: Some(s(2)),
        starts_seen: 1,
        ..unseen("", SecretWay::Volume, &[])
    };
    let token = SecretSource::ServiceAccountToken { audience: "".into() };
    let keys = vec![key("tls.crt", None), key("tls.key", Some(7))];
    let expected = vec![
        seen(api_tls(), MountState::Read, keys, Some(7)),
        unseen("db", SecretWay::Env, &["main", "side"]),
        unseen("registry", SecretWay::ImagePull, &[]),
        seen(token, MountState::NeverRead, vec![key("token", None)], None),
    ];
    let mounts: Vec<_> = snapshot.mounts.iter().map(|mount| (**mount).clone()).collect();
    assert_eq!(mounts, expected);
    let token = TokenUse {
        owner: api(),
        service_account: "api".into(),
        mounted_by: TokenMount::Default,
        state: MountState::NeverRead,
        read_by: Vec::new(),
        watched_since: Some(s(2)),
        starts_seen: 1,
        has_gaps: false,
        is_candidate: true,
    };
    assert_eq!(snapshot.tokens, [Arc::new(token)]);
}

#[test]
fn who_decides_on_a_token_is_the_pod_before_its_account() {
    let account = |automount: Option<bool>| {
        Change::Applied(Object::ServiceAccount(read(json!({
            "metadata": {"name": "api", "namespace": "shop"},
            "automountServiceAccountToken": automount,
        }))))
    };
    for (of_pod, of_account, mounted_by, is_candidate) in [
        (None, None, TokenMount::Default, true),
        (None, Some(true), TokenMount::ServiceAccount, true),
        // From before the account said no.
        (None, Some(false), TokenMount::ServiceAccount, false),
        (Some(true), Some(false), TokenMount::Pod, true),
        (Some(true), None, TokenMount::Pod, true),
        (Some(false), Some(true), TokenMount::Pod, false),
    ] {
        let mut engine = ready();
        let mut object = api_object();
        object["spec"]["automountServiceAccountToken"] = json!(of_pod);
        engine.step(Input::Cluster(vec![pod(object), account(of_account)], s(3)));
        let tokens = answers(&mut engine).tokens.clone();
        let told: Vec<_> = tokens.iter().map(|use_| (use_.mounted_by, use_.is_candidate)).collect();
        assert_eq!(told, [(mounted_by, is_candidate)], "{of_pod:?} {of_account:?}");
    }
}

#[test]
fn a_token_of_a_volume_of_its_own_and_one_that_is_read_are_no_candidates() {
    let mut engine = ready();
    let text = api_object().to_string().replace("kube-api-access-x", "vault-token");
    let own: Value = serde_json::from_str(&text).expect("still an object");
    let mut volume = token();
    volume.owner = VolumeOwner::Pod {
        uid: "uid-api".into(),
        volume: "vault-token".into(),
        plugin: VolumePlugin::Projected,
    };
    engine.step(Input::Volumes(vec![tls("..g1", 11), volume], s(3)));
    engine.step(Input::Cluster(vec![pod(own)], s(3)));
    let told = |engine: &mut Engine| {
        let tokens = answers(engine).tokens.clone();
        let told = tokens.iter().filter(|each| each.mounted_by == TokenMount::Volume);
        told.map(|each| (each.state, each.read_by.clone(), each.is_candidate)).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut engine), [(MountState::NeverRead, vec![], false)]);
    engine.step(Input::Records(vec![reads(TOKEN, 23, API_MAIN, 1, 6)]));
    assert_eq!(told(&mut engine), [(MountState::Read, vec!["main".into()], false)]);
}

#[test]
fn lost_opens_make_what_seems_unread_uncertain() {
    let gaps = |stage: &'static str| {
        let mut engine = ready();
        engine.step(Input::Tick(s(4)));
        engine.step(Input::Records(vec![Record::Lost { stage, count: 1 }]));
        let snapshot = answers(&mut engine);
        let token = SecretSource::ServiceAccountToken { audience: "".into() };
        let mount = mount(&snapshot, &token);
        (mount.state, mount.has_gaps, snapshot.tokens[0].is_candidate)
    };
    for stage in ["reads_full", "reads_quota", "descriptor_gone", "fixed_file"] {
        assert_eq!(gaps(stage), (MountState::NeverRead, true, false), "{stage}");
    }
    // Names alone, counted under a key of its own, and something else.
    for stage in ["secrets_full", "volume_reused", "ring_full"] {
        assert_eq!(gaps(stage), (MountState::NeverRead, false, true), "{stage}");
    }
}

#[test]
fn a_loss_before_it_was_watched_is_none_of_its_gaps() {
    let mut engine = Engine::new(EngineConfig::default());
    engine.step(Input::Tick(s(1)));
    engine.step(Input::Records(vec![Record::Lost { stage: "reads_full", count: 1 }]));
    engine.step(facts());
    engine.step(Input::Volumes(volumes(), s(2)));
    engine.step(Input::Cluster(lists([pod(api_object())]), s(2)));
    assert!(!mount(&answers(&mut engine), &api_tls()).has_gaps);
}

#[test]
fn a_read_by_nobody_known_waits_and_is_then_counted_as_such() {
    let mut engine = ready();
    engine.step(Input::Records(vec![reads(TLS, 12, NOBODY, 3, 6)]));
    assert_eq!(rows(&answers(&mut engine)), []);
    engine.step(Input::Tick(s(20)));
    let snapshot = answers(&mut engine);
    let reader = Reader::Unknown { reason: "cgroup_not_known".into() };
    assert_eq!(rows(&snapshot), [row(Relation::Unknown, reader, NOBODY, 3, (6, 6))]);
    assert_eq!(snapshot.unattributed, units(&[("cgroup_not_known", 3)]));
    let gaps: Vec<_> = snapshot.mounts.iter().map(|mount| mount.has_gaps).collect();
    assert_eq!(gaps, [true, false, false, false], "it may have been the owner");
}

#[test]
fn names_are_waited_for_but_not_for_long() {
    let mut engine = ready();
    let mut unnamed = reader(API_MAIN);
    unnamed.uid = 0;
    let read = |at| {
        let Record::Read(read) = reads(TLS, 12, API_MAIN, 1, at) else { unreachable!() };
        Record::Read(ReadRecord { reader: unnamed, ..read })
    };
    engine.step(Input::Tick(s(6)));
    engine.step(Input::Records(vec![read(6)]));
    engine.step(Input::Tick(s(7)));
    assert_eq!(rows(&answers(&mut engine)), []);
    engine.step(Input::Tick(s(8)));
    let nameless = SecretRead {
        program: "".into(),
        comm: "".into(),
        uid: 0,
        pid: 0,
        ..row(Relation::Own, by_api("main"), API_MAIN, 1, (6, 6))
    };
    assert_eq!(rows(&answers(&mut engine)), [nameless]);
}

#[test]
fn a_container_is_known_by_its_id_and_a_restart_has_another_one() {
    let mut engine = ready();
    let made = Record::CgroupCreated {
        cgroup_id: 12,
        path: "/kubepods/poduid-api/c-main-2".to_owned(),
        at: s(30),
    };
    engine.step(Input::Records(vec![made, seen(TLS, 12, 12, 31), reads(TLS, 12, 12, 1, 31)]));
    assert_eq!(rows(&answers(&mut engine)), [], "no status names it yet");
    let mut object = api_object();
    object["status"]["containerStatuses"][0] = json!({
        "name": "main", "containerID": "containerd://c-main-2",
        "state": {"running": {"startedAt": rfc3339(30)}},
        "lastState": {"terminated": {"startedAt": rfc3339(5), "containerID": "containerd://c-main"}},
    });
    engine.step(Input::Cluster(vec![pod(object)], s(32)));
    let snapshot = answers(&mut engine);
    assert_eq!(rows(&snapshot), [row(Relation::Own, by_api("main"), 12, 1, (31, 31))]);
    assert_eq!(mount(&snapshot, &api_tls()).starts_seen, 2);
}

#[test]
fn a_start_in_the_second_it_was_watched_from_counts_if_the_kernel_saw_it() {
    let starts = |made_ms: Option<u64>| {
        let mut engine = Engine::new(EngineConfig::default());
        engine.step(facts());
        let mut volume = tls("..g1", 11);
        volume.watched_since = Timestamp(s(5).0 + 300_000_000);
        engine.step(Input::Volumes(vec![volume], s(6)));
        let made = made_ms.map(|ms| Record::CgroupCreated {
            cgroup_id: API_MAIN,
            path: "/kubepods/poduid-api/c-main".to_owned(),
            at: Timestamp(s(5).0 + ms * 1_000_000),
        });
        engine.step(Input::Records(made.into_iter().collect()));
        engine.step(Input::Cluster(lists([pod(api_object())]), s(6)));
        mount(&answers(&mut engine), &api_tls()).starts_seen
    };
    // At the beginning of the second, after the watch began, and found long after.
    let all = [None, Some(0), Some(299), Some(300), Some(1_000), Some(1_001), Some(60_000)];
    assert_eq!(all.map(starts), [0, 0, 0, 1, 1, 0, 0]);
}

#[test]
fn a_sub_path_is_seen_and_a_volume_that_nobody_mounts_is_told() {
    let mut engine = ready();
    let mut object = api_object();
    object["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "tls", "mountPath": "/etc/tls.crt", "subPath": "tls.crt"}]);
    engine.step(Input::Cluster(vec![pod(object)], s(3)));
    engine
        .step(Input::Records(vec![reads(TLS, 11, API_MAIN, 1, 6), reads(TLS, 12, API_MAIN, 1, 6)]));
    let snapshot = answers(&mut engine);
    let told: Vec<_> = rows(&snapshot).into_iter().map(|row| (row.key, row.relation)).collect();
    assert_eq!(told, [("tls.crt".into(), Relation::Own), ("tls.key".into(), Relation::Sibling)]);
    let mounts = snapshot.mounts.iter().filter(|mount| mount.watched_since.is_some());
    let mounts: Vec<_> = mounts
        .map(|mount| {
            let keys: Vec<_> = mount.keys.iter().map(|key| &*key.path).collect();
            (mount.way, mount.state, mount.pods, keys)
        })
        .collect();
    let expected = [
        (SecretWay::SubPath, MountState::Read, 1, vec!["tls.crt"]),
        (SecretWay::Unmounted, MountState::NeverRead, 1, vec!["token"]),
    ];
    assert_eq!(mounts, expected);
}

#[test]
fn a_static_pod_is_known_by_what_its_kubelet_calls_it() {
    let mut engine = ready();
    let mut object = api_object();
    object["metadata"]["uid"] = json!("uid-mirror");
    object["metadata"]["name"] = json!("api-1");
    object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0123abcd"});
    let mut mirror = tls("..g1", 11);
    let id = VolumeId { device: 50, generation: 3 };
    mirror.id = id;
    mirror.owner = VolumeOwner::Pod {
        uid: "0123abcd".into(),
        volume: "tls".into(),
        plugin: VolumePlugin::Secret,
    };
    let cgroup = Record::CgroupCreated {
        cgroup_id: 13,
        path: "/kubepods/pod0123abcd/c-main".to_owned(),
        at: s(3),
    };
    engine.step(Input::Records(vec![cgroup, seen(id, 12, 13, 3), reads(id, 12, 13, 1, 6)]));
    engine.step(Input::Volumes([volumes(), vec![mirror]].concat(), s(7)));
    engine.step(Input::Cluster(vec![pod(object)], s(8)));
    let snapshot = answers(&mut engine);
    assert_eq!(rows(&snapshot), [row(Relation::Own, by_api("main"), 13, 1, (6, 6))]);
    assert_eq!(mount(&snapshot, &api_tls()).pods, 2);
}

#[test]
fn files_of_the_node_have_no_pod() {
    let mut engine = ready();
    let id = VolumeId { device: 8, generation: 5 };
    let pki = VolumeFacts {
        id,
        owner: VolumeOwner::Node { path: "/etc/kubernetes/pki".into() },
        files: vec![file(90, "/etc/kubernetes/pki/ca.key", "")],
        generation: String::new(),
        mounted_at: None,
        watched_since: s(2),
    };
    let conf = VolumeFacts {
        id,
        owner: VolumeOwner::Node { path: "/etc/admin.conf".into() },
        files: vec![file(91, "/etc/admin.conf", "")],
        ..pki.clone()
    };
    // Both have one number and one generation: each is its own inode.
    engine.step(Input::Volumes([volumes(), vec![pki, conf]].concat(), s(3)));
    engine.step(Input::Records(vec![reads(id, 90, WEB, 1, 6), reads(id, 91, SHELL, 1, 6)]));
    let told: Vec<_> = rows(&answers(&mut engine))
        .into_iter()
        .map(|row| (row.owner, row.source, row.key, row.relation))
        .collect();
    let of = |path: &str| SecretSource::NodeFile { path: path.into() };
    let expected = [
        (SecretOwner::Node, of("/etc/admin.conf"), "".into(), Relation::Node),
        (
            SecretOwner::Node,
            of("/etc/kubernetes/pki"),
            "/etc/kubernetes/pki/ca.key".into(),
            Relation::OtherPod,
        ),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_a_workload_read_stays_known_when_its_pods_are_replaced() {
    let mut engine = ready();
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 1, 6)]));
    engine.step(Input::Cluster(vec![Change::Deleted(object_ref("uid-api"))], s(8)));
    engine.step(Input::Volumes(Vec::new(), s(9)));
    let gone = mount(&answers(&mut engine), &api_tls());
    assert_eq!((gone.pods, gone.state, gone.last_read), (0, MountState::Read, Some(s(6))));
    let text = api_object().to_string().replace("uid-api", "uid-new").replace("c-main", "c-new");
    let again = pod(serde_json::from_str(&text).expect("still an object"));
    engine.step(Input::Cluster(vec![again], s(10)));
    let again = mount(&answers(&mut engine), &api_tls());
    assert_eq!((again.pods, again.state, again.first_read), (1, MountState::Read, Some(s(6))));
}

fn object_ref(uid: &str) -> ObjectRef {
    ObjectRef {
        kind: Kind::Pod,
        api_kind: String::new(),
        namespace: "shop".to_owned(),
        name: "api-0".to_owned(),
        uid: Some(uid.to_owned()),
    }
}

#[test]
fn pods_of_other_nodes_are_none_of_this_ones() {
    let mut engine = Engine::new(EngineConfig::default());
    let mut elsewhere = api_object();
    elsewhere["spec"]["nodeName"] = json!("n2");
    // Its node is told after it.
    engine.step(Input::Cluster(lists([pod(elsewhere)]), s(2)));
    engine.step(facts());
    let snapshot = engine.snapshot();
    assert_eq!((snapshot.secrets.mounts.len(), snapshot.tables["secret_pods"].0), (0, 0));
}

#[test]
fn hostile_names_are_escaped_and_cut() {
    let mut engine = ready();
    let long = "x".repeat(65_536);
    let Record::Reader(names) = seen(TLS, 12, API_MAIN, 2) else { unreachable!() };
    let names = ReaderSeen { comm: "a\u{1b}[2J\n".to_owned(), program: long, ..names };
    let path = format!("{}\u{202e}", "y".repeat(2_000));
    let mut volume = tls("..g1", 11);
    volume.files.push(file(13, &path, "..g\u{1b}"));
    engine.step(Input::Volumes(vec![volume], s(3)));
    engine.step(Input::Records(vec![Record::Reader(names), reads(TLS, 13, API_MAIN, 1, 6)]));
    let told = rows(&answers(&mut engine)).remove(0);
    let expected = SecretRead {
        key: format!("{}…", "y".repeat(1_024)).into(),
        program: format!("{}…", "x".repeat(1_024)).into(),
        comm: r"a\u{1b}[2J\u{a}".into(),
        generation: r"..g\u{1b}".into(),
        ..row(Relation::Own, by_api("main"), API_MAIN, 1, (6, 6))
    };
    assert_eq!(told, expected);
}
