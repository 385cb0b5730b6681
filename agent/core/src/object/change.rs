//! What is told of the cluster: objects that are applied, deleted, or listed as a whole.
//!
//! In: objects in the shape of their API. Out: [`Change`]s, from files and from a live cluster
//! alike. A list is told object by object, so that nobody has to hold it twice.

use serde::Serialize;

use super::{
    AdminNetworkPolicy, ClusterNetworkPolicy, ClusterRole, ClusterRoleBinding, EndpointSlice, Meta,
    Namespace, NetworkPolicy, Node, Pod, Role, RoleBinding, Service, ServiceAccount,
    WorkloadObject,
};

/// One step of the cluster's life, from files and from a live cluster alike.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every change is an applied object")]
pub enum Change {
    /// The object is now as given, whether it was known or not.
    Applied(Object),
    /// The object is gone. Applies only if the UID matches, where one is given.
    Deleted(ObjectRef),
    /// A full list of this kind begins. What is applied from now on is in it, whether it is named
    /// by the list or by an event that came between. One that runs already begins anew.
    Listing(Kind),
    /// The list of this kind is complete: what was not applied since [`Change::Listing`] is gone,
    /// and after the first one the kind is synced. Nothing without a list that runs.
    Listed(Kind),
}

impl Change {
    /// Which kind it is about.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Applied(object) => object.kind(),
            Self::Deleted(object) => object.kind,
            Self::Listing(kind) | Self::Listed(kind) => *kind,
        }
    }

    /// The full list of a kind. Objects of another kind are left out.
    pub fn list(
        kind: Kind,
        objects: impl IntoIterator<Item = Object>,
    ) -> impl Iterator<Item = Self> {
        let of_kind = objects.into_iter().filter(move |object| object.kind() == kind);
        let applied = of_kind.map(Self::Applied);
        [Self::Listing(kind)].into_iter().chain(applied).chain([Self::Listed(kind)])
    }
}

/// The kinds Parapet reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// core/v1
    Namespace,
    /// core/v1
    Node,
    /// core/v1
    Pod,
    /// core/v1
    Service,
    /// discovery.k8s.io/v1
    EndpointSlice,
    /// networking.k8s.io/v1
    NetworkPolicy,
    /// policy.networking.k8s.io/v1alpha2 and v1beta1
    ClusterNetworkPolicy,
    /// policy.networking.k8s.io/v1alpha1
    AdminNetworkPolicy,
    /// policy.networking.k8s.io/v1alpha1
    BaselineAdminNetworkPolicy,
    /// apps/v1, batch/v1: anything that owns pods or owns their owners. A live cluster is not asked
    /// for them: pods tell enough of theirs, see `identity`.
    Workload,
    /// core/v1
    ServiceAccount,
    /// rbac.authorization.k8s.io/v1
    Role,
    /// rbac.authorization.k8s.io/v1
    RoleBinding,
    /// rbac.authorization.k8s.io/v1
    ClusterRole,
    /// rbac.authorization.k8s.io/v1
    ClusterRoleBinding,
}

impl Kind {
    /// Every kind, owners before what they own: a source must have listed each of them once before
    /// anything is judged.
    pub const ALL: [Self; 15] = [
        Self::Namespace,
        Self::Node,
        Self::Workload,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::AdminNetworkPolicy,
        Self::BaselineAdminNetworkPolicy,
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::ClusterRole,
        Self::ClusterRoleBinding,
    ];

    /// Whether objects of this kind are network policies, of whatever tier.
    #[must_use]
    pub fn is_policy(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy
                | Self::ClusterNetworkPolicy
                | Self::AdminNetworkPolicy
                | Self::BaselineAdminNetworkPolicy
        )
    }

    /// Whether objects of this kind say what service accounts may do.
    #[must_use]
    pub fn is_access(self) -> bool {
        matches!(
            self,
            Self::ServiceAccount
                | Self::Role
                | Self::RoleBinding
                | Self::ClusterRole
                | Self::ClusterRoleBinding
        )
    }

    /// Whether objects of this kind belong to no namespace.
    #[must_use]
    pub fn is_cluster_scoped(self) -> bool {
        match self {
            Self::Namespace
            | Self::Node
            | Self::ClusterNetworkPolicy
            | Self::AdminNetworkPolicy
            | Self::BaselineAdminNetworkPolicy
            | Self::ClusterRole
            | Self::ClusterRoleBinding => true,
            Self::Pod
            | Self::Service
            | Self::EndpointSlice
            | Self::NetworkPolicy
            | Self::Workload
            | Self::ServiceAccount
            | Self::Role
            | Self::RoleBinding => false,
        }
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant is documented at its type")]
pub enum Object {
    Namespace(Namespace),
    Node(Node),
    Pod(Box<Pod>),
    Service(Service),
    EndpointSlice(EndpointSlice),
    NetworkPolicy(NetworkPolicy),
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    AdminNetworkPolicy(AdminNetworkPolicy),
    BaselineAdminNetworkPolicy(AdminNetworkPolicy),
    Workload(WorkloadObject),
    ServiceAccount(ServiceAccount),
    Role(Role),
    RoleBinding(RoleBinding),
    ClusterRole(ClusterRole),
    ClusterRoleBinding(ClusterRoleBinding),
}

impl Object {
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
            Self::ClusterNetworkPolicy(_) => Kind::ClusterNetworkPolicy,
            Self::AdminNetworkPolicy(_) => Kind::AdminNetworkPolicy,
            Self::BaselineAdminNetworkPolicy(_) => Kind::BaselineAdminNetworkPolicy,
            Self::Workload(_) => Kind::Workload,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Role(_) => Kind::Role,
            Self::RoleBinding(_) => Kind::RoleBinding,
            Self::ClusterRole(_) => Kind::ClusterRole,
            Self::ClusterRoleBinding(_) => Kind::ClusterRoleBinding,
        }
    }

    /// `metadata`, which every kind has.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Namespace(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::NetworkPolicy(object) => &object.metadata,
            Self::ClusterNetworkPolicy(object) => &object.metadata,
            Self::AdminNetworkPolicy(object) | Self::BaselineAdminNetworkPolicy(object) => {
                &object.metadata
            }
            Self::Workload(object) => &object.metadata,
            Self::ServiceAccount(object) => &object.metadata,
            Self::Role(object) => &object.metadata,
            Self::RoleBinding(object) => &object.metadata,
            Self::ClusterRole(object) => &object.metadata,
            Self::ClusterRoleBinding(object) => &object.metadata,
        }
    }

    /// The same, to fill in what was left out.
    pub fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Namespace(object) => &mut object.metadata,
            Self::Node(object) => &mut object.metadata,
            Self::Pod(object) => &mut object.metadata,
            Self::Service(object) => &mut object.metadata,
            Self::EndpointSlice(object) => &mut object.metadata,
            Self::NetworkPolicy(object) => &mut object.metadata,
            Self::ClusterNetworkPolicy(object) => &mut object.metadata,
            Self::AdminNetworkPolicy(object) | Self::BaselineAdminNetworkPolicy(object) => {
                &mut object.metadata
            }
            Self::Workload(object) => &mut object.metadata,
            Self::ServiceAccount(object) => &mut object.metadata,
            Self::Role(object) => &mut object.metadata,
            Self::RoleBinding(object) => &mut object.metadata,
            Self::ClusterRole(object) => &mut object.metadata,
            Self::ClusterRoleBinding(object) => &mut object.metadata,
        }
    }
}

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// For [`Kind::Workload`] the API kind ("ReplicaSet"), else empty.
    pub api_kind: String,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`, where known.
    pub uid: Option<String>,
}
