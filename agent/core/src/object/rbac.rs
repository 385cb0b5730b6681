//! Service accounts, roles and bindings, as core/v1 and rbac.authorization.k8s.io/v1 have them.
//!
//! In: YAML or JSON by serde. Out: the fields that say who may do what. Of Secrets not even the
//! names are read.

use serde::Deserialize;

use super::{LabelSelector, Meta, or_default};

/// core/v1 ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ServiceAccount {
    pub metadata: Meta,
    pub automount_service_account_token: Option<bool>,
}

/// rbac.authorization.k8s.io/v1 Role.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct Role {
    pub metadata: Meta,
    /// The API server writes no rules as null.
    #[serde(default, deserialize_with = "or_default")]
    pub rules: Vec<PolicyRule>,
}

/// rbac.authorization.k8s.io/v1 ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ClusterRole {
    pub metadata: Meta,
    /// The API server writes no rules as null, and those of an aggregated role as last summed up.
    #[serde(default, deserialize_with = "or_default")]
    pub rules: Vec<PolicyRule>,
    pub aggregation_rule: Option<AggregationRule>,
}

/// `aggregationRule` of a ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct AggregationRule {
    #[serde(default, deserialize_with = "or_default")]
    pub cluster_role_selectors: Vec<LabelSelector>,
}

/// `rules[]` of a Role or ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct PolicyRule {
    #[serde(default, deserialize_with = "or_default")]
    pub verbs: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub api_groups: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub resources: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub resource_names: Vec<String>,
    #[serde(default, rename = "nonResourceURLs", deserialize_with = "or_default")]
    pub non_resource_urls: Vec<String>,
}

/// rbac.authorization.k8s.io/v1 RoleBinding.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct RoleBinding {
    pub metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    pub subjects: Vec<AccessSubject>,
    pub role_ref: RoleRef,
}

/// rbac.authorization.k8s.io/v1 ClusterRoleBinding.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ClusterRoleBinding {
    pub metadata: Meta,
    #[serde(default, deserialize_with = "or_default")]
    pub subjects: Vec<AccessSubject>,
    pub role_ref: RoleRef,
}

/// `subjects[]` of a binding: a User, a Group or a ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct AccessSubject {
    pub kind: String,
    #[serde(default)]
    pub api_group: String,
    pub name: String,
    #[serde(default)]
    pub namespace: String,
}

/// `roleRef` of a binding: a Role of its own namespace or a ClusterRole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct RoleRef {
    #[serde(default)]
    pub api_group: String,
    pub kind: String,
    pub name: String,
}
