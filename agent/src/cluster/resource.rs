//! What is watched, and where it is.
//!
//! In: nothing. Out: every resource with its paths, its versions and what it becomes. Secrets are
//! not in this list, and nothing that is not in it is ever listed or watched.

use parapet_core::object::Kind;

/// One resource of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// The plural name, as in a path.
    pub(super) name: &'static str,
    /// The API's own word for one, as in `kind`.
    pub(super) api_kind: &'static str,
    group: &'static str,
    /// Best first. More than one only where what is served has to be found out.
    pub(super) versions: &'static [&'static str],
    pub(super) what: What,
    /// What limits the list, as a part of the query.
    pub(super) selector: &'static str,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Objects of the index, the policy sets or the access rules.
    Objects(Kind),
    /// The same, of a definition that may come and go.
    Defined(Kind),
    /// Policy sets that are staged in ConfigMaps.
    Candidates,
}

/// The group of the cluster-scoped policies.
pub(super) const POLICY_GROUP: &str = "policy.networking.k8s.io";
/// ConfigMaps that hold a candidate; the value is its name.
pub const CANDIDATE_LABEL: &str = "parapet.dev/candidate";

const RBAC: &str = "rbac.authorization.k8s.io";

/// Everything that is watched, owners before what they own.
pub(super) const RESOURCES: [Resource; 15] = [
    objects("", "namespaces", "Namespace", Kind::Namespace),
    objects("", "nodes", "Node", Kind::Node),
    objects("", "pods", "Pod", Kind::Pod),
    objects("", "services", "Service", Kind::Service),
    objects("discovery.k8s.io", "endpointslices", "EndpointSlice", Kind::EndpointSlice),
    objects("networking.k8s.io", "networkpolicies", "NetworkPolicy", Kind::NetworkPolicy),
    defined(
        &["v1beta1", "v1alpha2"],
        "clusternetworkpolicies",
        "ClusterNetworkPolicy",
        Kind::ClusterNetworkPolicy,
    ),
    defined(&["v1alpha1"], "adminnetworkpolicies", "AdminNetworkPolicy", Kind::AdminNetworkPolicy),
    defined(
        &["v1alpha1"],
        "baselineadminnetworkpolicies",
        "BaselineAdminNetworkPolicy",
        Kind::BaselineAdminNetworkPolicy,
    ),
    objects("", "serviceaccounts", "ServiceAccount", Kind::ServiceAccount),
    objects(RBAC, "roles", "Role", Kind::Role),
    objects(RBAC, "rolebindings", "RoleBinding", Kind::RoleBinding),
    objects(RBAC, "clusterroles", "ClusterRole", Kind::ClusterRole),
    objects(RBAC, "clusterrolebindings", "ClusterRoleBinding", Kind::ClusterRoleBinding),
    Resource {
        name: "configmaps",
        api_kind: "ConfigMap",
        group: "",
        versions: &["v1"],
        what: What::Candidates,
        selector: "labelSelector=parapet.dev/candidate",
    },
];

impl Resource {
    /// The path of all of them.
    pub(super) fn path(&self, version: &str) -> String {
        path(self.group, version, self.name)
    }

    /// As in `apiVersion`.
    pub(super) fn api_version(&self, version: &str) -> String {
        match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// None for candidates.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self.what {
            What::Objects(kind) | What::Defined(kind) => Some(kind),
            What::Candidates => None,
        }
    }

    pub(super) fn is_defined(&self) -> bool {
        matches!(self.what, What::Defined(_))
    }
}

/// Where the API server has all objects of a resource; the group of core is empty.
pub(super) fn path(group: &str, version: &str, name: &str) -> String {
    match group {
        "" => format!("/api/{version}/{name}"),
        group => format!("/apis/{group}/{version}/{name}"),
    }
}

const fn objects(
    group: &'static str,
    name: &'static str,
    api_kind: &'static str,
    kind: Kind,
) -> Resource {
    let what = What::Objects(kind);
    Resource { name, api_kind, group, versions: &["v1"], what, selector: "" }
}

const fn defined(
    versions: &'static [&'static str],
    name: &'static str,
    api_kind: &'static str,
    kind: Kind,
) -> Resource {
    let what = What::Defined(kind);
    Resource { name, api_kind, group: POLICY_GROUP, versions, what, selector: "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_watched_but_workloads_and_no_secret_is() {
        let watched: Vec<Kind> = RESOURCES.iter().filter_map(Resource::kind).collect();
        let wanted: Vec<Kind> =
            Kind::ALL.into_iter().filter(|kind| *kind != Kind::Workload).collect();
        assert_eq!(watched, wanted);
        assert!(RESOURCES.iter().all(|resource| resource.name != "secrets"));
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let path = |name: &str| {
            let resource = RESOURCES.iter().find(|resource| resource.name == name).unwrap();
            let version = resource.versions[0];
            (resource.path(version), resource.api_version(version))
        };
        assert_eq!(path("pods"), ("/api/v1/pods".to_owned(), "v1".to_owned()));
        let api_version = "policy.networking.k8s.io/v1beta1";
        let policies = format!("/apis/{api_version}/clusternetworkpolicies");
        assert_eq!(path("clusternetworkpolicies"), (policies, api_version.to_owned()));
    }
}
