//! One reader at full speed, another once a second: the second is never hidden by the first.

use support::agent::Agent;
use support::pod::PodSpec;
use support::reading::Use;
use support::secret::SecretVolume;

use super::{api, opened, watch};
use crate::agent::{binary, new_node};

#[test]
fn a_flood_of_one_pod_hides_no_read_of_another() {
    let mut node = new_node();
    let (api, db) = api(&mut node);
    let spec = PodSpec::new("b", "web").secret("own").mounts(&[("own", None)]);
    let web = node.pod(&spec).unwrap();
    let files: Vec<_> = (0..300).map(|number| format!("key-{number}")).collect();
    let files: Vec<_> = files.iter().map(|name| (name.as_str(), "x")).collect();
    let own = SecretVolume::secret(&node, &web, "own", &files).unwrap();
    let agent = Agent::start(&binary(), &node, &[]).unwrap();
    watch(&agent, 2);
    let mut paths: Vec<_> = files.iter().map(|(name, _)| own.file(name)).collect();
    let other = node.folder().join("other");
    std::fs::write(&other, "x").unwrap();
    paths.push(other);
    let flood = Use { paths, count: 1_000, ..Use::default() };
    let flooding = web.spawn(&flood.task()).unwrap();
    let steady = Use { pause_ms: 1_000, ..Use::of(db.file("pass"), Default::default(), 6) };
    let steady = api.spawn(&steady.task()).unwrap();
    assert_eq!(steady.finish().unwrap().attempts, 6);
    assert_eq!(flooding.finish().unwrap().attempts, 301 * 1_000);
    let each = files.iter().map(|(name, _)| format!("b/web own/{name} <- self b/web:main"));
    let each: Vec<_> = each.collect();
    let mut expected: Vec<_> = each.iter().map(|read| (read.as_str(), 1_000)).collect();
    expected.push(("a/api db/pass <- self a/api:main", 6));
    let report = opened(&agent, &expected);
    assert_eq!(report.lost.values().sum::<u64>(), 0, "{:?}", report.lost);
}
