//! Every table at 0, 1, one below its limit, at it, and eight times over it.

use super::*;
use crate::engine::STAGE_SECRET_TABLES_FULL;
use crate::secrets::{Limits, OTHER_READS, Secrets, Units};

const LIMIT: usize = 8;
const AT: [usize; 5] = [0, 1, LIMIT - 1, LIMIT, 8 * LIMIT];

fn limited(change: impl Fn(&mut Limits)) -> Engine {
    let mut limits = Limits::default();
    change(&mut limits);
    let mut engine = Engine::new(EngineConfig::default());
    engine.secrets = Secrets::with_limits(Units::default(), limits);
    engine.step(facts());
    engine.step(Input::Records(cgroups()));
    engine.step(Input::Volumes(volumes(), s(2)));
    engine.step(Input::Cluster(lists([pod(api_object()), pod(web_object())]), s(2)));
    engine.step(Input::Records(known()));
    engine
}

fn by_user(uid: usize, opens: u64) -> Vec<Record> {
    let (Record::Read(read), Record::Reader(names)) =
        (reads(TLS, 12, API_MAIN, opens, 6), seen(TLS, 12, API_MAIN, 6))
    else {
        unreachable!()
    };
    let reader = ReaderId { uid: u32::try_from(uid).expect("small"), ..read.reader };
    vec![
        Record::Reader(ReaderSeen { reader, ..names }),
        Record::Read(ReadRecord { reader, ..read }),
    ]
}

fn lost(engine: &mut Engine) -> u64 {
    engine.snapshot().lost.get(STAGE_SECRET_TABLES_FULL).copied().unwrap_or_default()
}

#[test]
fn rows_beyond_the_limit_are_one_with_exact_totals() {
    for count in AT {
        let mut engine = limited(|limits| limits.reads = LIMIT);
        for uid in 0..count {
            engine.step(Input::Records(by_user(uid, 3)));
        }
        let told = rows(&answers(&mut engine));
        let (other, own): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|row| &*row.key == OTHER_READS);
        assert_eq!(own.len(), count.min(LIMIT));
        let over = count.saturating_sub(LIMIT) as u64;
        let folded = other.iter().map(|row| (row.relation, row.counts.opens));
        let expected: Vec<_> =
            (over > 0).then_some((Relation::Own, 3 * over)).into_iter().collect();
        assert_eq!(folded.collect::<Vec<_>>(), expected);
        assert_eq!(lost(&mut engine), over);
        // What was read is known all the same.
        let state = mount(&answers(&mut engine), &api_tls()).state;
        let expected = if count > 0 { MountState::Read } else { MountState::NeverRead };
        assert_eq!(state, expected);
    }
}

#[test]
fn what_cannot_wait_is_counted_at_once() {
    for count in AT {
        let mut engine = limited(|limits| limits.waiting = LIMIT);
        let unknown = |inode| reads(TLS, inode, NOBODY, 1, 6);
        for inode in 0..count as u64 {
            engine.step(Input::Records(vec![unknown(100 + inode)]));
        }
        let waiting = engine.snapshot().tables["secret_reads_waiting"];
        assert_eq!(waiting, (count.min(LIMIT) as u64, LIMIT as u64));
        let over = count.saturating_sub(LIMIT) as u64;
        let opens: u64 = rows(&answers(&mut engine)).iter().map(|row| row.counts.opens).sum();
        assert_eq!(opens, over);
        engine.step(Input::Tick(s(60)));
        let snapshot = answers(&mut engine);
        let opens: u64 = rows(&snapshot).iter().map(|row| row.counts.opens).sum();
        assert_eq!(opens, count as u64);
        assert_eq!(snapshot.unattributed.get("waiting_full").copied().unwrap_or(0), over);
    }
}

#[test]
fn volumes_and_files_beyond_the_limit_are_refused_and_counted() {
    for count in AT {
        let mut engine = limited(|limits| limits.volumes = LIMIT);
        let one = |device: usize| {
            let id =
                VolumeId { device: 1_000 + u32::try_from(device).expect("small"), generation: 1 };
            volume(id, &format!("uid-{device}"), "tls", vec![file(1, "a", "..g")])
        };
        engine.step(Input::Volumes((0..count).map(one).collect(), s(3)));
        let tables = engine.snapshot().tables.clone();
        assert_eq!(tables["secret_volumes"].0, count.min(LIMIT) as u64);
        assert_eq!(lost(&mut engine), count.saturating_sub(LIMIT) as u64);
        // Two were there before.
        engine.step(Input::Volumes(Vec::new(), s(4)));
        let tables = engine.snapshot().tables.clone();
        assert_eq!(tables["secret_volumes"].0, 0);

        let mut engine = limited(|limits| limits.files = LIMIT + 5);
        let files = (100..100 + count as u64).map(|inode| file(inode, "a", "..g")).collect();
        let id = VolumeId { device: 90, generation: 1 };
        let more = volume(id, "uid-api", "more", files);
        engine.step(Input::Volumes([volumes(), vec![more]].concat(), s(3)));
        assert_eq!(engine.snapshot().tables["secret_files"].0, (5 + count.min(LIMIT)) as u64);
        assert_eq!(lost(&mut engine), count.saturating_sub(LIMIT) as u64);
    }
}

#[test]
fn the_oldest_of_what_is_gone_is_forgotten_first() {
    for count in AT {
        let mut engine = limited(|limits| {
            (limits.gone_volumes, limits.replaced_files) = (LIMIT, LIMIT);
        });
        for generation in 0..=count as u64 {
            let name = format!("..g{generation}");
            engine.step(Input::Volumes(vec![tls(&name, 100 + 2 * generation), token()], s(3)));
        }
        // Two files each, and the two of the first generation before all.
        let files = 5 + (2 * (count + 1)).min(LIMIT);
        assert_eq!(engine.snapshot().tables["secret_files"].0, files as u64);
        let mut engine = limited(|limits| limits.gone_volumes = LIMIT);
        engine.step(Input::Volumes(Vec::new(), s(3)));
        for device in 0..count {
            let id =
                VolumeId { device: 500, generation: u32::try_from(device + 1).expect("small") };
            engine.step(Input::Volumes(vec![volume(id, "uid-x", "tls", Vec::new())], s(4)));
        }
        engine.step(Input::Volumes(Vec::new(), s(5)));
        let gone = engine.snapshot().tables["secret_volume_tombstones"].0;
        assert_eq!(gone, (count + 2).min(LIMIT) as u64);
    }
}

#[test]
fn readers_pods_and_mounts_beyond_the_limit_are_refused_and_counted() {
    for count in AT {
        let mut engine = limited(|limits| limits.readers = LIMIT + 7);
        for uid in 0..count {
            engine.step(Input::Records(by_user(uid, 1)));
        }
        assert_eq!(engine.snapshot().tables["secret_readers"].0, (7 + count.min(LIMIT)) as u64);
        assert_eq!(lost(&mut engine), count.saturating_sub(LIMIT) as u64);

        let one = |at: usize| {
            let text = web_object().to_string();
            let text = text
                .replace("\"web\"", &format!("\"w{at}\""))
                .replace("uid-web", &format!("uid-{at}"));
            let mut object: Value = serde_json::from_str(&text).expect("still an object");
            object["spec"]["imagePullSecrets"] = json!([{"name": "pull"}]);
            pod(object)
        };
        let mut engine = limited(|limits| limits.pods = LIMIT + 2);
        engine.step(Input::Cluster((0..count).map(one).collect(), s(3)));
        assert_eq!(engine.snapshot().tables["secret_pods"].0, (2 + count.min(LIMIT)) as u64);
        assert_eq!(lost(&mut engine), count.saturating_sub(LIMIT) as u64);

        // Four mounts of `api`, and one of each pod.
        let mut engine = limited(|limits| limits.mounts = LIMIT + 4);
        engine.step(Input::Cluster((0..count).map(one).collect(), s(3)));
        assert_eq!(answers(&mut engine).mounts.len(), 4 + count.min(LIMIT));
        assert_eq!(lost(&mut engine), count.saturating_sub(LIMIT) as u64);
        // What no pod has any more makes room for what one has.
        engine.step(Input::Cluster(lists([]), s(4)));
        answers(&mut engine);
        engine.step(Input::Cluster(vec![one(1_000)], s(5)));
        let owner = SecretOwner::Workload {
            namespace: "front".into(),
            workload: Workload { kind: "Pod".into(), name: "w1000".into() },
        };
        assert!(answers(&mut engine).mounts.iter().any(|mount| mount.owner == owner));
    }
}
