//! Which objects a running list has not named yet.
//!
//! In: the keys that are known when a list begins, and each key it names. Out: at its end the keys
//! that nobody named. It holds keys that others share, and no object.

use std::borrow::Borrow;
use std::hash::Hash;

use foldhash::HashSet;

/// The list of one kind, if one runs.
#[derive(Debug)]
pub(crate) struct Listing<K>(Option<HashSet<K>>);

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Hash + Eq> Listing<K> {
    /// A list begins while these are known. One that ran before counts for nothing.
    pub(crate) fn begin(&mut self, known: impl Iterator<Item = K>) {
        self.0 = Some(known.collect());
    }

    /// The object of this key is there.
    pub(crate) fn named<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(unnamed) = &mut self.0 {
            unnamed.remove(key);
        }
    }

    /// Whether a list runs that has not named this key, which was known at its beginning.
    pub(crate) fn is_unnamed<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.as_ref().is_some_and(|unnamed| unnamed.contains(key))
    }

    /// The list is complete: the keys that were known at its beginning and not named since. None if
    /// no list ran.
    pub(crate) fn end(&mut self) -> Option<HashSet<K>> {
        self.0.take()
    }
}
