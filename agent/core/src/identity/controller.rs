//! The controlling owner a pod names.
//!
//! In: nothing (values only). Out: what pods keep of their owner and owners are found by. It knows
//! no object.

use std::sync::Arc;

/// API kind, namespace and name of an owner.
pub(super) type OwnerKey = (Arc<str>, Arc<str>, Arc<str>);

/// The controlling owner a pod names. Pods of one ReplicaSet share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Controller {
    pub(super) key: OwnerKey,
    pub(super) uid: Arc<str>,
}
