//! Sets of UIDs that mostly hold one: the pods with one address.
//!
//! In: UIDs. Out: whether they are in the set, and all of them in their order. It never needs an
//! allocation for a single one.

use std::collections::BTreeSet;
use std::sync::Arc;

/// At least one UID; an empty set is no set.
#[derive(Debug)]
pub(super) enum Uids {
    One(Arc<str>),
    /// Boxed: of the hundred thousands of addresses few were ever another pod's.
    #[expect(clippy::box_collection, reason = "the set is as small as its usual single UID")]
    Many(Box<BTreeSet<Arc<str>>>),
}

impl Uids {
    pub(super) fn insert(&mut self, uid: Arc<str>) {
        match self {
            Self::One(only) if *only == uid => {}
            Self::One(only) => *self = Self::Many(Box::new([only.clone(), uid].into())),
            Self::Many(all) => {
                all.insert(uid);
            }
        }
    }

    /// Whether the set is to be dropped: this was its only one.
    pub(super) fn remove(&mut self, uid: &str) -> bool {
        match self {
            Self::One(only) => **only == *uid,
            Self::Many(all) => {
                all.remove(uid);
                if all.len() == 1
                    && let Some(only) = all.pop_first()
                {
                    *self = Self::One(only);
                }
                false
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        let (one, many) = match self {
            Self::One(only) => (Some(only), None),
            Self::Many(all) => (None, Some(all.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set_whether_it_holds_one_or_more() {
        let listed = |uids: &Uids| uids.iter().map(|uid| uid.to_string()).collect::<Vec<_>>();
        let mut uids = Uids::One("b".into());
        uids.insert("b".into());
        assert_eq!((listed(&uids), uids.remove("a")), (vec!["b".to_owned()], false));
        uids.insert("c".into());
        uids.insert("a".into());
        uids.insert("c".into());
        assert_eq!(listed(&uids), ["a", "b", "c"]);
        assert_eq!((uids.remove("b"), listed(&uids)), (false, vec!["a".into(), "c".into()]));
        assert_eq!((uids.remove("a"), listed(&uids)), (false, vec!["c".into()]));
        assert!(matches!(uids, Uids::One(_)));
        assert!(uids.remove("c"));
        assert!(size_of::<Uids>() <= size_of::<Arc<str>>() + size_of::<usize>());
    }
}
