//! Sets that mostly hold one: the pods with one address, the Services with one.
//!
//! In: what there may be more than one of. Out: whether it is in the set, and all of it in its
//! order. It never needs an allocation for a single one.

use std::collections::BTreeSet;

/// At least one; an empty set is no set.
#[derive(Debug)]
pub(super) enum Few<T> {
    One(T),
    #[expect(clippy::box_collection, reason = "the rare case is not to make the usual one bigger")]
    Many(Box<BTreeSet<T>>),
}

impl<T: Clone + Ord> Few<T> {
    pub(super) fn insert(&mut self, item: T) {
        match self {
            Self::One(only) if *only == item => {}
            Self::One(only) => *self = Self::Many(Box::new([only.clone(), item].into())),
            Self::Many(all) => {
                all.insert(item);
            }
        }
    }

    /// Whether the set is to be dropped: this was its only one.
    pub(super) fn remove(&mut self, item: &T) -> bool {
        match self {
            Self::One(only) => *only == *item,
            Self::Many(all) => {
                all.remove(item);
                if all.len() == 1
                    && let Some(only) = all.pop_first()
                {
                    *self = Self::One(only);
                }
                false
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        let (one, many) = match self {
            Self::One(only) => (Some(only), None),
            Self::Many(all) => (None, Some(all.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn it_is_a_set_whether_it_holds_one_or_more() {
        let listed = |few: &Few<&'static str>| few.iter().copied().collect::<Vec<_>>();
        let mut few = Few::One("b");
        few.insert("b");
        assert_eq!((listed(&few), few.remove(&"a")), (vec!["b"], false));
        few.insert("c");
        few.insert("a");
        few.insert("c");
        assert_eq!(listed(&few), ["a", "b", "c"]);
        assert_eq!((few.remove(&"b"), listed(&few)), (false, vec!["a", "c"]));
        assert_eq!((few.remove(&"a"), listed(&few)), (false, vec!["c"]));
        assert!(matches!(few, Few::One("c")));
        assert!(few.remove(&"c"));
        assert_eq!(size_of::<Few<Arc<str>>>(), size_of::<Arc<str>>());
    }
}
