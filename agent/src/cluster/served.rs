//! Which cluster-scoped policies the API server has, as their definitions come and go.
//!
//! In: its discovery of one group, asked every half minute. Out: the best version known here of
//! each resource. Definitions themselves are not read: discovery is open to everybody who is
//! somebody (`system:discovery`), so no further right is needed, and it is two small answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::watch;

use super::ask::{Asker, Failure, Purpose};
use super::pace::{Pace, chance};
use super::resource::{POLICY_GROUP, RESOURCES, Resource};
use super::state::States;

const ASK_EVERY: Duration = Duration::from_secs(30);
const PURPOSE: Purpose = Purpose { verb: "get", resource: "discovery" };

/// Resource to the version it is asked in.
pub(super) type Served = BTreeMap<&'static str, &'static str>;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Group {
    versions: Vec<GroupVersion>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GroupVersion {
    version: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    resources: Vec<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// Asks until nobody listens.
pub(super) async fn follow(
    asker: Arc<Asker>,
    states: Arc<States>,
    served: watch::Sender<Option<Served>>,
) {
    let mut pace = Pace::default();
    loop {
        match discover(&asker, &states).await {
            Ok(found) => {
                pace.succeeded();
                states.change(PURPOSE.resource, |state| {
                    state.synced = true;
                    state.failure = None;
                    state.current_at = Some(Instant::now());
                    state.objects = found.len() as u64;
                });
                served.send_if_modified(|known| {
                    let is_other = known.as_ref() != Some(&found);
                    *known = Some(found);
                    is_other
                });
            }
            Err(failure) => {
                pace.failed(failure.retry_after);
                states.change(PURPOSE.resource, |state| state.failure = Some(failure.said));
            }
        }
        let usual = match served.borrow().is_some() {
            true => ASK_EVERY.mul_f64(0.9 + chance() / 5.0),
            false => Duration::ZERO,
        };
        tokio::time::sleep(pace.pause(false, Instant::now(), chance()).max(usual)).await;
        if served.is_closed() {
            return;
        }
    }
}

async fn discover(asker: &Asker, states: &States) -> Result<Served, Failure> {
    let Some(group) = read::<Group>(asker, &format!("/apis/{POLICY_GROUP}")).await? else {
        return Ok(Served::new());
    };
    let mut in_version = Vec::new();
    for GroupVersion { version } in group.versions {
        let path = format!("/apis/{POLICY_GROUP}/{version}");
        let Some(found) = read::<Resources>(asker, &path).await? else { continue };
        in_version.push((version, found.resources));
    }
    let mut served = Served::new();
    for resource in RESOURCES.iter().filter(|resource| resource.is_defined()) {
        let has = |version: &str| {
            let of_version = in_version.iter().filter(|(served, _)| served == version);
            of_version.flat_map(|(_, found)| found).any(|found| found.name == resource.name)
        };
        match resource.versions.iter().find(|version| has(version)) {
            Some(version) => {
                served.insert(resource.name, *version);
            }
            None => unknown(resource, &in_version, states),
        }
    }
    Ok(served)
}

/// A definition that is newer or older than Parapet: named, and judged as if it were not there.
fn unknown(resource: &Resource, in_version: &[(String, Vec<Named>)], states: &States) {
    let versions: Vec<&str> = in_version
        .iter()
        .filter(|(_, found)| found.iter().any(|found| found.name == resource.name))
        .map(|(version, _)| version.as_str())
        .collect();
    states.change(PURPOSE.resource, |state| {
        if versions.is_empty() {
            state.problems.remove(resource.name);
            return;
        }
        let problem = format!(
            "served as {}, of which this version of Parapet knows none: not judged",
            versions.join(", ")
        );
        if state.problem(resource.name.to_owned(), problem.clone()) {
            tracing::warn!("{}: {problem}", resource.name);
        }
    });
}

/// None: there is no such group or version.
async fn read<T: serde::de::DeserializeOwned>(
    asker: &Asker,
    path: &str,
) -> Result<Option<T>, Failure> {
    match asker.whole(PURPOSE, path).await {
        Ok(text) => {
            let read = serde_json::from_slice(&text);
            read.map(Some).map_err(|error| Failure::said(format!("{path}: {error}")))
        }
        Err(failure) if failure.code == 404 => Ok(None),
        Err(failure) => Err(failure),
    }
}
