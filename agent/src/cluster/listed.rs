//! The cluster's objects, listed once.
//!
//! In: a client. Out: the same [`Loaded`] that files of `kubectl get -A -o yaml` give, so that what
//! is asked of a cluster and of its files has one answer. It asks only for kinds that are judged
//! by, and for the number of policies that are not judged; never for Secrets.

use anyhow::Context;
use http::Request;
use kube::Client;
use serde::Deserialize;

use super::connect::{Session, told};
use super::resource::{self, RESOURCES, Resource};
use crate::manifests::{self, Loaded};

/// Objects asked for at once: a page of large pods is some megabytes.
const PAGE: u32 = 500;

/// Policies of implementations, which may deny too and are not judged: they are only counted. What
/// calicoctl calls `projectcalico.org` is stored as `crd.projectcalico.org`.
const NOT_JUDGED: [(&str, &str, &str, &str); 6] = [
    ("cilium.io", "v2", "ciliumnetworkpolicies", "CiliumNetworkPolicy"),
    ("cilium.io", "v2", "ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy"),
    ("crd.projectcalico.org", "v1", "networkpolicies", "NetworkPolicy"),
    ("crd.projectcalico.org", "v1", "globalnetworkpolicies", "GlobalNetworkPolicy"),
    ("crd.antrea.io", "v1beta1", "networkpolicies", "NetworkPolicy"),
    ("crd.antrea.io", "v1beta1", "clusternetworkpolicies", "ClusterNetworkPolicy"),
];

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Page {
    metadata: PageMeta,
    /// Of a page of one object.
    items: Vec<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    #[serde(rename = "continue")]
    next: String,
    remaining_item_count: u64,
}

/// Everything that is judged by.
///
/// # Errors
/// The API server does not answer, or does not let the user list a kind: without it a verdict would
/// be a guess.
pub async fn list(session: &Session) -> anyhow::Result<Loaded> {
    let client = &session.client;
    let mut all = Loaded::default();
    let is_judged_by = |resource: &&Resource| resource.kind().is_some_and(|kind| !kind.is_access());
    for resource in RESOURCES.iter().filter(is_judged_by) {
        for version in resource.versions {
            if list_kind(client, resource, version, &mut all).await? {
                break;
            }
        }
    }
    for (group, version, resource, kind) in NOT_JUDGED {
        // Everyone may ask which groups there are; who may not list a kind gets the same answer
        // whether it is there or not.
        if get(client, &format!("/apis/{group}/{version}"), group).await?.is_none() {
            continue;
        }
        let path = format!("{}?limit=1", resource::path(group, version, resource));
        let Some(text) = get(client, &path, resource).await? else { continue };
        let page: Page = serde_json::from_str(&text).with_context(|| path.clone())?;
        let count = page.items.len() as u64 + page.metadata.remaining_item_count;
        if count > 0 {
            all.skipped.insert(format!("{kind} ({group}/{version})"), count);
        }
    }
    Ok(all)
}

/// False: the API server has no such kind.
async fn list_kind(
    client: &Client,
    resource: &Resource,
    version: &str,
    all: &mut Loaded,
) -> anyhow::Result<bool> {
    let (base, resource) = (resource.path(version), resource.name);
    let mut next = String::new();
    loop {
        let path = match next.as_str() {
            "" => format!("{base}?limit={PAGE}"),
            next => format!("{base}?limit={PAGE}&continue={next}"),
        };
        let Some(text) = get(client, &path, resource).await? else { return Ok(false) };
        let page: Page = serde_json::from_str(&text).with_context(|| path.clone())?;
        let read = manifests::read(&format!("{resource} of the API server"), text.into_bytes());
        all.objects.extend(read.objects);
        all.problems.extend(read.problems);
        all.notices.extend(read.notices);
        next = page.metadata.next;
        if next.is_empty() {
            return Ok(true);
        }
    }
}

/// None: there is no such kind.
async fn get(client: &Client, path: &str, resource: &str) -> anyhow::Result<Option<String>> {
    match client.request_text(Request::get(path).body(Vec::new())?).await {
        Ok(text) => Ok(Some(text)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 403 => anyhow::bail!(
            "{resource} cannot be listed: {}. The ClusterRole parapet-viewer allows it",
            status.message
        ),
        Err(error) => Err(told(error)).with_context(|| format!("{resource} cannot be listed")),
    }
}
