//! What a Pod object says of its volumes, its containers and what they get of Secrets.
//!
//! In: YAML or JSON of the whole object by serde. Out: [`PodParts`], read for pods of the own node
//! only. The value of a variable is never read, and neither is anything of a Secret but its name
//! and its keys' names. A null, as the API server writes empty lists of some fields, is an absent
//! field.

use serde::Deserialize;

use super::or_default;

/// The parts of a core/v1 Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct PodParts {
    #[serde(default, deserialize_with = "or_default")]
    pub spec: PartsSpec,
    #[serde(default, deserialize_with = "or_default")]
    pub status: PartsStatus,
}

/// `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct PartsSpec {
    pub automount_service_account_token: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    pub image_pull_secrets: Vec<ObjectName>,
    #[serde(default, deserialize_with = "or_default")]
    pub volumes: Vec<PodVolume>,
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<ContainerParts>,
    #[serde(default, deserialize_with = "or_default")]
    pub init_containers: Vec<ContainerParts>,
    #[serde(default, deserialize_with = "or_default")]
    pub ephemeral_containers: Vec<ContainerParts>,
}

/// `LocalObjectReference`, and what is like it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ObjectName {
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
}

/// `spec.volumes[]`, of the kinds that may hold a secret. Of any other kind it has none of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct PodVolume {
    #[serde(default)]
    pub name: String,
    pub secret: Option<SecretVolume>,
    pub projected: Option<ProjectedVolume>,
    pub csi: Option<CsiVolume>,
}

/// `spec.volumes[].secret`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct SecretVolume {
    #[serde(default, deserialize_with = "or_default")]
    pub secret_name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub items: Vec<KeyToPath>,
}

/// `items[]` of a volume or of a part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct KeyToPath {
    #[serde(default, deserialize_with = "or_default")]
    pub key: String,
    #[serde(default, deserialize_with = "or_default")]
    pub path: String,
}

/// `spec.volumes[].projected`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ProjectedVolume {
    #[serde(default, deserialize_with = "or_default")]
    pub sources: Vec<ProjectedSource>,
}

/// `spec.volumes[].projected.sources[]`: one of its fields is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ProjectedSource {
    pub secret: Option<ProjectedObject>,
    pub config_map: Option<ProjectedObject>,
    #[serde(rename = "downwardAPI")]
    pub downward_api: Option<ProjectedFields>,
    pub service_account_token: Option<ProjectedToken>,
    pub cluster_trust_bundle: Option<ProjectedBundle>,
}

/// `secret` and `configMap` of a projected source.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ProjectedObject {
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub items: Vec<KeyToPath>,
}

/// `downwardAPI` of a projected source. Its items have no key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ProjectedFields {
    #[serde(default, deserialize_with = "or_default")]
    pub items: Vec<KeyToPath>,
}

/// `serviceAccountToken` of a projected source.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ProjectedToken {
    #[serde(default, deserialize_with = "or_default")]
    pub audience: String,
    #[serde(default, deserialize_with = "or_default")]
    pub path: String,
}

/// `clusterTrustBundle` of a projected source: one bundle by its name, or all of a signer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ProjectedBundle {
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub signer_name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub path: String,
}

/// `spec.volumes[].csi`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct CsiVolume {
    #[serde(default, deserialize_with = "or_default")]
    pub driver: String,
    pub node_publish_secret_ref: Option<ObjectName>,
}

/// A container of whatever kind, as far as it gets something of a Secret.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct ContainerParts {
    #[serde(default)]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub volume_mounts: Vec<VolumeMount>,
    #[serde(default, deserialize_with = "or_default")]
    pub env: Vec<EnvVar>,
    #[serde(default, deserialize_with = "or_default")]
    pub env_from: Vec<EnvFrom>,
}

/// `volumeMounts[]` of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct VolumeMount {
    #[serde(default)]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub mount_path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub sub_path: String,
    #[serde(default, deserialize_with = "or_default")]
    pub sub_path_expr: String,
}

/// `env[]` of a container, without its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct EnvVar {
    pub value_from: Option<EnvSource>,
}

/// `env[].valueFrom`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct EnvSource {
    pub secret_key_ref: Option<ObjectName>,
}

/// `envFrom[]` of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct EnvFrom {
    pub secret_ref: Option<ObjectName>,
}

/// `status`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct PartsStatus {
    #[serde(default, deserialize_with = "or_default")]
    pub container_statuses: Vec<RunStatus>,
    #[serde(default, deserialize_with = "or_default")]
    pub init_container_statuses: Vec<RunStatus>,
    #[serde(default, deserialize_with = "or_default")]
    pub ephemeral_container_statuses: Vec<RunStatus>,
}

/// `containerStatuses[]`: the container that runs or ran last, and the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct RunStatus {
    #[serde(default)]
    pub name: String,
    /// `containerd://<id>`, `cri-o://<id>`, `docker://<id>`.
    #[serde(default, rename = "containerID", deserialize_with = "or_default")]
    pub container_id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub state: RunState,
    #[serde(default, deserialize_with = "or_default")]
    pub last_state: RunState,
}

/// `ContainerState`: one of its fields is there, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct RunState {
    pub running: Option<Run>,
    pub terminated: Option<Run>,
}

/// `running` and `terminated` of a `ContainerState`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// RFC 3339, in whole seconds: the part below was cut away.
    pub started_at: Option<String>,
    /// Only of one that ended.
    #[serde(default, rename = "containerID", deserialize_with = "or_default")]
    pub container_id: String,
}
