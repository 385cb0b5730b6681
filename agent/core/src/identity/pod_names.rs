//! Which pod has a name now.
//!
//! In: UIDs with their pods' namespaces and names. Out: the UID of a name. Of the names only a hash
//! is kept, as the pods have them already; who looks one up says which pod is the right one.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::HashMap;
use foldhash::fast::RandomState;

use super::few::Few;

/// UIDs by the hash of namespace and name.
#[derive(Debug, Default)]
pub(super) struct PodNames {
    hasher: RandomState,
    by_hash: HashMap<u64, Few<Arc<str>>>,
}

impl PodNames {
    /// The UID for which `is_it` says that its pod has this name.
    pub(super) fn get(
        &self,
        (namespace, name): (&str, &str),
        is_it: impl Fn(&str) -> bool,
    ) -> Option<&Arc<str>> {
        let mut uids = self.by_hash.get(&self.hash(namespace, name))?.iter();
        uids.find(|uid| is_it(uid))
    }

    /// The pod has this name from now on. Who had it before was removed.
    pub(super) fn insert(&mut self, (namespace, name): (&str, &str), uid: &Arc<str>) {
        let hash = self.hash(namespace, name);
        let one = || Few::One(uid.clone());
        self.by_hash.entry(hash).or_insert_with(one).insert(uid.clone());
    }

    /// The pod has this name no more, if it had it.
    pub(super) fn remove(&mut self, (namespace, name): (&str, &str), uid: &Arc<str>) {
        let hash = self.hash(namespace, name);
        if self.by_hash.get_mut(&hash).is_some_and(|uids| uids.remove(uid)) {
            self.by_hash.remove(&hash);
        }
    }

    fn hash(&self, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_hash_are_told_apart() {
        let mut names = PodNames::default();
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        names.insert(("ns", "x"), &a);
        // As if `y` had the hash of `x`.
        names.insert(("ns", "x"), &b);
        let found = |names: &PodNames, uid: &str| names.get(("ns", "x"), |one| one == uid).cloned();
        assert_eq!((found(&names, "a"), found(&names, "b")), (Some(a.clone()), Some(b.clone())));
        names.remove(("ns", "x"), &a);
        assert_eq!((found(&names, "a"), found(&names, "b")), (None, Some(b.clone())));
        names.remove(("ns", "x"), &a);
        names.remove(("ns", "other"), &b);
        assert_eq!(found(&names, "b"), Some(b.clone()));
        names.remove(("ns", "x"), &b);
        assert_eq!(names.by_hash.len(), 0);
    }
}
