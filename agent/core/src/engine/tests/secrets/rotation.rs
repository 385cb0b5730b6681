//! Rotation, and volumes that come and go under the same device number.

use super::*;
use crate::secrets::StaleReader;

fn stale(engine: &mut Engine) -> Vec<StaleReader> {
    mount(&answers(engine), &api_tls()).stale
}

fn old(at: u64) -> StaleReader {
    let [read, current] = ["..g1", "..g2"].map(Into::into);
    StaleReader { container: "main".into(), read, current, since: s(at) }
}

#[test]
fn a_reader_is_stale_until_it_reads_what_replaced_what_it_has() {
    let mut engine = ready();
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 1, 6), reads(TLS, 12, WEB, 1, 6)]));
    assert_eq!(stale(&mut engine), []);
    let rotated = vec![tls("..g2", 31), token()];
    engine.step(Input::Volumes(rotated.clone(), s(10)));
    assert_eq!(stale(&mut engine), [old(10)]);
    // It has the old file open still, whose inode nobody lists any more.
    engine.step(Input::Volumes(rotated, s(12)));
    let Record::Read(held) = reads(TLS, 12, API_MAIN, 0, 13) else { unreachable!() };
    let counts = ReadCounts { held: 1, ..ReadCounts::default() };
    engine.step(Input::Records(vec![Record::Read(ReadRecord { counts, ..held })]));
    assert_eq!(stale(&mut engine), [old(10)]);
    engine.step(Input::Records(vec![reads(TLS, 32, API_MAIN, 1, 14)]));
    assert_eq!(stale(&mut engine), []);
    let told: Vec<_> = rows(&answers(&mut engine))
        .into_iter()
        .map(|row| (row.relation, row.counts.opens, row.counts.held, row.generation))
        .collect();
    let expected =
        [(Relation::Own, 2, 1, "..g2".into()), (Relation::OtherPod, 1, 0, "..g1".into())];
    assert_eq!(told, expected);
}

#[test]
fn a_container_that_was_restarted_has_nothing_old() {
    let mut engine = ready();
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 1, 6)]));
    engine.step(Input::Volumes(vec![tls("..g2", 31)], s(10)));
    let mut object = api_object();
    object["status"]["containerStatuses"][0] = json!({
        "name": "main", "containerID": "containerd://c-new",
        "state": {"running": {"startedAt": rfc3339(11)}},
    });
    engine.step(Input::Cluster(vec![pod(object)], s(12)));
    assert_eq!(stale(&mut engine), []);
}

#[test]
fn a_file_that_nobody_listed_in_time_is_known_by_its_name() {
    let mut engine = ready();
    let Record::Reader(told) = seen(TLS, 77, API_MAIN, 6) else { unreachable!() };
    let told = ReaderSeen { folder: "..g9".to_owned(), name: "tls.key".to_owned(), ..told };
    engine.step(Input::Records(vec![Record::Reader(told), reads(TLS, 77, API_MAIN, 1, 6)]));
    assert_eq!(rows(&answers(&mut engine)), [], "its folder may still be listed");
    engine.step(Input::Tick(s(17)));
    let snapshot = answers(&mut engine);
    let row = row(Relation::Own, by_api("main"), API_MAIN, 1, (6, 6));
    assert_eq!(rows(&snapshot), [SecretRead { generation: "..g9".into(), ..row }]);
    assert_eq!(snapshot.unattributed, units(&[]));
}

#[test]
fn a_device_number_used_again_is_another_volume() {
    let mut engine = ready();
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 1, 6)]));
    let again = VolumeId { device: TLS.device, generation: 9_999 };
    // Nobody told yet that it is another one.
    engine.step(Input::Records(vec![
        seen(again, 12, WEB, 7),
        reads(again, 12, WEB, 4, 7),
        reads(again, 12, API_MAIN, 1, 7),
    ]));
    let own = row(Relation::Own, by_api("main"), API_MAIN, 1, (6, 6));
    assert_eq!(rows(&answers(&mut engine)), std::slice::from_ref(&own));
    let mut object = web_object();
    object["spec"]["volumes"] = json!([{"name": "tls", "secret": {"secretName": "web-tls",
        "items": [{"key": "key", "path": "./a//b"}]}}]);
    object["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "tls", "mountPath": "/t"}]);
    engine.step(Input::Cluster(vec![pod(object)], s(8)));
    let of_web = volume(again, "uid-web", "tls", vec![file(12, "a/b", "..w1")]);
    engine.step(Input::Volumes(vec![of_web, token()], s(8)));
    let workload = Workload { kind: "Pod".into(), name: "web".into() };
    let theirs = |relation, reader, cgroup, opens| SecretRead {
        owner: SecretOwner::Workload { namespace: "front".into(), workload: workload.clone() },
        source: SecretSource::Secret { name: "web-tls".into() },
        key: "key".into(),
        generation: "..w1".into(),
        ..row(relation, reader, cgroup, opens, (7, 7))
    };
    let snapshot = answers(&mut engine);
    let expected = [
        theirs(Relation::Own, by_web("web"), WEB, 4),
        theirs(Relation::OtherPod, by_api("main"), API_MAIN, 1),
        own,
    ];
    assert_eq!(rows(&snapshot), expected);
    // A late record of the one before it.
    engine.step(Input::Records(vec![reads(TLS, 12, API_MAIN, 1, 6)]));
    let row = row(Relation::Own, by_api("main"), API_MAIN, 2, (6, 6));
    assert_eq!(rows(&answers(&mut engine))[2], row);
}

#[test]
fn a_superblock_that_nobody_tells_of_is_nobodys() {
    let mut engine = ready();
    let unknown = VolumeId { device: TLS.device, generation: 1 };
    let zero = VolumeId { device: 60, generation: 0 };
    let mut of_any = tls("..g1", 11);
    (of_any.id, of_any.mounted_at) = (zero, Some(s(8)));
    engine.step(Input::Volumes([volumes(), vec![of_any]].concat(), s(9)));
    // One without a generation is not what was there before it was mounted.
    engine.step(Input::Records(vec![
        reads(unknown, 12, API_MAIN, 2, 6),
        reads(zero, 12, API_MAIN, 3, 7),
        reads(zero, 12, SHELL, 1, 8),
    ]));
    engine.step(Input::Tick(s(30)));
    let snapshot = answers(&mut engine);
    assert_eq!(snapshot.unattributed, units(&[("volume_not_known", 5)]));
    let told: Vec<_> = rows(&snapshot)
        .into_iter()
        .map(|row| (row.owner, row.source, row.key, row.relation, row.counts.opens))
        .collect();
    let nobody = SecretSource::Unknown { volume: "".into() };
    let expected = [
        (api(), api_tls(), "tls.key".into(), Relation::Node, 1),
        (SecretOwner::Unknown, nobody, "".into(), Relation::Unknown, 5),
    ];
    assert_eq!(told, expected);
}

#[test]
fn two_pods_that_share_a_secret_have_each_its_own_volume() {
    let mut engine = ready();
    let id = VolumeId { device: 70, generation: 70 };
    let mut object = web_object();
    object["spec"]["volumes"] = json!([{"name": "tls", "secret": {"secretName": "api-tls"}}]);
    object["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "tls", "mountPath": "/t"}]);
    object["metadata"]["namespace"] = json!("shop");
    engine.step(Input::Cluster(vec![pod(object)], s(3)));
    let shared = volume(id, "uid-web", "tls", vec![file(12, "tls.key", "..g1")]);
    engine.step(Input::Volumes([volumes(), vec![shared]].concat(), s(3)));
    engine.step(Input::Records(vec![seen(id, 12, WEB, 3), reads(id, 12, WEB, 1, 6)]));
    let snapshot = answers(&mut engine);
    let found = snapshot.mounts.iter().filter(|mount| mount.source == api_tls());
    let found: Vec<_> = found.map(|mount| (mount.owner.clone(), mount.state)).collect();
    let workload = Workload { kind: "Pod".into(), name: "web".into() };
    let web = SecretOwner::Workload { namespace: "shop".into(), workload };
    assert_eq!(found, [(web, MountState::Read), (api(), MountState::NeverRead)]);
}

#[test]
fn a_volume_whose_generation_nobody_could_read_has_that_of_its_first_read() {
    let mut engine = ready();
    let [first, second] = [5, 6].map(|generation| VolumeId { device: 60, generation });
    let mut untold = tls("..g1", 11);
    untold.id = VolumeId { device: 60, generation: 0 };
    engine.step(Input::Volumes(vec![untold], s(3)));
    engine.step(Input::Records(vec![
        reads(first, 12, API_MAIN, 1, 6),
        reads(second, 12, API_MAIN, 2, 7),
        reads(first, 12, API_MAIN, 4, 8),
    ]));
    let own = row(Relation::Own, by_api("main"), API_MAIN, 5, (6, 8));
    assert_eq!(rows(&answers(&mut engine)), std::slice::from_ref(&own));
    let mut rotated = tls("..g2", 31);
    rotated.id = VolumeId { device: 60, generation: 0 };
    engine.step(Input::Volumes(vec![rotated], s(10)));
    assert_eq!(stale(&mut engine), [old(10)]);
    engine.step(Input::Tick(s(30)));
    assert_eq!(answers(&mut engine).unattributed, units(&[("volume_not_known", 2)]));
}

#[test]
fn what_may_have_been_read_is_uncertain_and_nothing_else() {
    let gaps = |inode| {
        let mut engine = ready();
        engine.step(Input::Records(vec![reads(TOKEN, inode, NOBODY, 1, 6)]));
        engine.step(Input::Tick(s(30)));
        let snapshot = answers(&mut engine);
        let all = snapshot.mounts.iter().map(|mount| mount.has_gaps).collect::<Vec<_>>();
        (all, snapshot.tokens[0].has_gaps)
    };
    // The bundle beside the token is none, the token is, and what nobody knows may be.
    assert_eq!(gaps(21), (vec![false; 4], false));
    assert_eq!(gaps(23), (vec![false, false, false, true], true));
    assert_eq!(gaps(99), (vec![false, false, false, true], true));
}
