//! One allocation for what many pods have in common: strings, label arrays, named ports, owners.
//!
//! In: values as objects have them. Out: `Arc`s; of equal values the same one, for as long as
//! anybody holds it. It keeps no value alive: who holds the last one frees it, whatever is
//! remembered here. What is left of freed values is swept away before it outgrows the others.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Weak};

use foldhash::HashMap;
use foldhash::fast::RandomState;

use super::controller::Controller;
use crate::access::Rule;
use crate::flow::NamedPort;
use crate::policy::Labels;

/// Entries that are not worth a sweep.
const SWEEP_MIN: usize = 64;

/// The values that are shared.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    strings: Shared<str>,
    labels: Shared<Labels>,
    ports: Shared<[NamedPort]>,
    controllers: Shared<Controller>,
    words: Shared<[Arc<str>]>,
    rules: Shared<[Rule]>,
    /// Holders that let go since all was swept.
    released: usize,
}

/// Values of one sort by their hash.
struct Shared<T: ?Sized> {
    hasher: RandomState,
    known: HashMap<u64, Weak<T>>,
    sweep_at: usize,
}

impl Interner {
    pub(crate) fn text(&mut self, text: &str) -> Arc<str> {
        self.strings.text(text)
    }

    /// The labels of a namespace's pods, sorted by key as the map is. No two namespaces share: who
    /// remembers what holds of a namespace's pods sees by its labels when the last one is gone.
    pub(super) fn labels(
        &mut self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Arc<Labels> {
        let Self { strings, labels: arrays, .. } = self;
        let same = |known: &Labels| is_same(known, labels);
        arrays.get_or_make(&(namespace, labels), same, || strings.pairs(labels).collect())
    }

    /// Labels to look for, sorted by key as the map is. Only the texts are shared.
    pub(crate) fn selector(&mut self, labels: &BTreeMap<String, String>) -> Box<Labels> {
        self.strings.pairs(labels).collect()
    }

    pub(super) fn ports(&mut self, ports: &[NamedPort]) -> Arc<[NamedPort]> {
        let values: Vec<_> =
            ports.iter().map(|port| (&port.name, port.protocol, port.port)).collect();
        self.ports.get_or_make(&values, |known| known == ports, || ports.into())
    }

    pub(super) fn controller(&mut self, controller: Controller) -> Arc<Controller> {
        let same = |known: &Controller| *known == controller;
        self.controllers.get_or_make(&controller, same, || Arc::new(controller.clone()))
    }

    /// A list of words, in their order.
    pub(crate) fn words(&mut self, words: &[String]) -> Arc<[Arc<str>]> {
        let Self { strings, words: lists, .. } = self;
        let same = |known: &[Arc<str>]| known.iter().map(|word| &**word).eq(words);
        lists.get_or_make(words, same, || words.iter().map(|word| strings.text(word)).collect())
    }

    pub(crate) fn rules(&mut self, rules: Vec<Rule>) -> Arc<[Rule]> {
        self.rules.get_or_make(&*rules, |known| *known == *rules, || rules.as_slice().into())
    }

    /// Some holders let go of what they held; `left` still hold. So many gone as are left are worth
    /// a sweep, so that each pays for a fixed share of it.
    pub(crate) fn released(&mut self, (gone, left): (usize, usize)) {
        self.released += gone;
        if self.released > left + SWEEP_MIN {
            self.released = 0;
            self.labels.sweep();
            self.ports.sweep();
            self.controllers.sweep();
            self.rules.sweep();
            self.words.sweep();
            // Last: what the others held is free now.
            self.strings.sweep();
        }
    }

    /// Strings, label arrays, ports and controllers that are remembered, alive or not.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        let Self { strings, labels, ports, controllers, .. } = self;
        [strings.known.len(), labels.known.len(), ports.known.len(), controllers.known.len()]
    }
}

impl Shared<str> {
    fn text(&mut self, text: &str) -> Arc<str> {
        self.get_or_make(text, |known| known == text, || text.into())
    }

    fn pairs(
        &mut self,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        labels.iter().map(|(key, value)| (self.text(key), self.text(value)))
    }
}

impl<T: ?Sized> Shared<T> {
    /// The value that has this content, made if nobody holds it.
    fn get_or_make<C: Hash + ?Sized>(
        &mut self,
        content: &C,
        same: impl Fn(&T) -> bool,
        make: impl FnOnce() -> Arc<T>,
    ) -> Arc<T> {
        let hash = self.hasher.hash_one(content);
        match self.known.get(&hash).and_then(Weak::upgrade) {
            Some(known) if same(&known) => known,
            // Another value of the same hash: this one is right too, only not shared.
            Some(_) => make(),
            None => {
                let made = make();
                self.known.insert(hash, Arc::downgrade(&made));
                if self.known.len() >= self.sweep_at {
                    self.sweep();
                }
                made
            }
        }
    }

    /// Forgets the values nobody holds. The next sweep comes when there are twice as many as now,
    /// so that each entry pays for a fixed share of it.
    fn sweep(&mut self) {
        self.known.retain(|_, value| value.strong_count() > 0);
        self.sweep_at = self.known.len() * 2 + SWEEP_MIN;
        if self.known.capacity() > self.sweep_at * 2 {
            self.known.shrink_to(self.sweep_at);
        }
    }
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { hasher: RandomState::default(), known: HashMap::default(), sweep_at: SWEEP_MIN }
    }
}

impl<T: ?Sized> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shared values", self.known.len())
    }
}

fn is_same(known: &Labels, labels: &BTreeMap<String, String>) -> bool {
    let mut pairs = known.iter().zip(labels);
    known.len() == labels.len() && pairs.all(|(a, b)| *a.0 == **b.0 && *a.1 == **b.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn equal_values_are_one_and_others_are_not() {
        let mut interner = Interner::default();
        let both = labels(&[("app", "web"), ("tier", "app")]);
        let (first, second) = (interner.labels("ns", &both), interner.labels("ns", &both.clone()));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(*first, [("app".into(), "web".into()), ("tier".into(), "app".into())]);
        // Key and value are strings like any other.
        assert!(Arc::ptr_eq(&first[0].0, &first[1].1));
        assert!(Arc::ptr_eq(&first[0].1, &interner.text("web")));
        for other in [&[("app", "web")][..], &[("app", "web"), ("tier", "db")], &[]] {
            let other = interner.labels("ns", &labels(other));
            assert!(!Arc::ptr_eq(&first, &other) && first != other, "{other:?}");
        }
        let elsewhere = interner.labels("other", &both);
        assert!(!Arc::ptr_eq(&first, &elsewhere) && Arc::ptr_eq(&first[0].0, &elsewhere[0].0));
        let selector = interner.selector(&both);
        assert!(*selector == *first && Arc::ptr_eq(&first[0].0, &selector[0].0));
        assert_eq!(Arc::strong_count(&first), 2, "a selector is no pod");
        let port = |port| NamedPort { name: "http".into(), protocol: Protocol::TCP, port };
        let first = interner.ports(&[port(80)]);
        assert!(Arc::ptr_eq(&first, &interner.ports(&[port(80)])));
        assert_eq!(*interner.ports(&[port(81)]), [port(81)]);
    }

    #[test]
    fn another_value_of_the_same_hash_is_not_taken_for_it() {
        let mut shared = Shared::<str>::default();
        let first = shared.get_or_make("hash", |known| known == "first", || "first".into());
        let second = shared.get_or_make("hash", |known| known == "second", || "second".into());
        assert_eq!((&*first, &*second, shared.known.len()), ("first", "second", 1));
        let known = Interner::default().labels("ns", &labels(&[("a", "1"), ("b", "2")]));
        for (pairs, expected) in [
            (&[("a", "1"), ("b", "2")][..], true),
            (&[("a", "1")], false),
            (&[("a", "1"), ("b", "2"), ("c", "3")], false),
            (&[("a", "1"), ("b", "3")], false),
            (&[("a", "1"), ("c", "2")], false),
        ] {
            assert_eq!(is_same(&known, &labels(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_value_is_freed_by_who_holds_it_last() {
        let mut interner = Interner::default();
        let held = interner.labels("ns", &labels(&[("app", "web")]));
        let key = Arc::downgrade(&held[0].0);
        assert_eq!((Arc::strong_count(&held), key.strong_count()), (1, 1));
        drop(held);
        assert_eq!(key.strong_count(), 0);
        let again = interner.labels("ns", &labels(&[("app", "web")]));
        assert_eq!(*again, [("app".into(), "web".into())]);
    }

    #[test]
    fn what_is_left_of_freed_values_does_not_grow() {
        let mut interner = Interner::default();
        let lasting: Vec<_> = (0..100)
            .map(|pod| interner.labels("ns", &labels(&[("app", &format!("a{pod}"))])))
            .collect();
        for change in 0..100_000 {
            drop(interner.labels("ns", &labels(&[("app", &format!("changed-{change}"))])));
            let [strings, arrays, ..] = interner.sizes();
            assert!(strings <= 2 * 101 + 2 * SWEEP_MIN, "{strings} after {change}");
            assert!(arrays <= 2 * 100 + 2 * SWEEP_MIN, "{arrays} after {change}");
        }
        assert!(Arc::ptr_eq(&lasting[7], &interner.labels("ns", &labels(&[("app", "a7")]))));
    }

    #[test]
    fn nothing_is_left_when_all_let_go() {
        let mut interner = Interner::default();
        let mut held: Vec<_> = (0..10_000)
            .map(|pod| interner.labels("ns", &labels(&[("app", &format!("a{pod}"))])))
            .collect();
        assert_eq!(interner.sizes(), [10_001, 10_000, 0, 0]);
        while held.pop().is_some() {
            interner.released((1, held.len()));
        }
        let left = interner.sizes();
        assert!(left[0] <= 2 * SWEEP_MIN + 1 && left[1] <= 2 * SWEEP_MIN, "{left:?}");
        assert!(interner.strings.known.capacity() <= 8 * SWEEP_MIN);
    }
}
