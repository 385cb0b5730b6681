//! The policy sets: what is enforced, what is enforced with everything else denied, and candidates.
//!
//! In: policies as they come and go, and whole candidates. Out: [`PolicySet`]s in a fixed order,
//! what a change touches, and what was rejected. It judges nothing. The engine keeps one; who asks
//! about manifests alone keeps one too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::listing::Listing;
use crate::object::{Change, Kind, Object, ObjectRef};
use crate::policy::{CompiledPolicy, PolicySet, Rejection, Selection, compile_object};
use crate::snapshot::RejectedPolicy;

/// The set of what is enforced now.
pub const ENFORCED: &str = "enforced";
/// The enforced set with every pod isolated in both directions besides.
pub const DEFAULT_DENY: &str = "default-deny";
/// Candidates at once, and policies of one set. Further ones are rejected by name.
pub const CANDIDATES_MAX: usize = 16;
/// Policies of one set. Further ones are rejected by name.
pub const POLICIES_MAX: usize = 65_536;
/// Rejections that are listed.
const REJECTIONS_MAX: usize = 4_096;

/// Kind, namespace (empty for cluster-scoped kinds) and name.
type PolicyKey = (Kind, String, String);

/// What a named candidate would change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// Policies that would be applied: new ones, or in place of an enforced one of the same kind,
    /// namespace and name.
    pub objects: Vec<Object>,
    /// Enforced policies that would be deleted.
    pub removed: Vec<ObjectRef>,
}

/// What a change of policies touches.
#[derive(Clone, Debug)]
pub enum Touched {
    /// Flows of the pods these policies select, as they were and as they are.
    Policies(Vec<Arc<CompiledPolicy>>),
    /// There is a set more, or one less.
    Everything,
}

/// Policies of one source.
#[derive(Debug, Default)]
struct Policies {
    compiled: BTreeMap<PolicyKey, Arc<CompiledPolicy>>,
    rejected: BTreeMap<PolicyKey, Vec<Rejection>>,
    removed: BTreeSet<PolicyKey>,
    /// Kinds that are there and are no policies.
    others: BTreeSet<Kind>,
}

/// All policy sets.
#[derive(Debug)]
pub struct PolicySets {
    enforced: Policies,
    listings: BTreeMap<Kind, Listing<PolicyKey>>,
    candidates: BTreeMap<Arc<str>, Policies>,
    /// Candidates that are no set at all.
    refused: BTreeMap<Arc<str>, Rejection>,
    /// How often one more was given than are named.
    refused_more: u64,
    sets: Vec<PolicySet>,
    names: Vec<Arc<str>>,
    built: bool,
}

impl Default for PolicySets {
    fn default() -> Self {
        Self {
            enforced: Policies::default(),
            listings: BTreeMap::new(),
            candidates: BTreeMap::new(),
            refused: BTreeMap::new(),
            refused_more: 0,
            sets: Vec::new(),
            names: vec![ENFORCED.into(), DEFAULT_DENY.into()],
            built: false,
        }
    }
}

impl PolicySets {
    /// Takes one change of the enforced policies. Those of other kinds are nothing here.
    pub fn apply(&mut self, change: &Change, selection: &mut Selection) -> Touched {
        match change {
            Change::Applied(policy) => self.applied(policy, selection),
            Change::Deleted(policy) => self.deleted(policy),
            Change::Listing(kind) => {
                self.begin_list(*kind);
                Touched::Policies(Vec::new())
            }
            Change::Listed(kind) => self.end_list(*kind),
        }
    }

    fn applied(&mut self, policy: &Object, selection: &mut Selection) -> Touched {
        if let Some(listing) = self.listings.get_mut(&policy.kind()) {
            listing.named(&key_of(policy));
        }
        let touched = self.enforced.insert(policy, &ENFORCED.into(), selection);
        self.changed(touched)
    }

    fn deleted(&mut self, policy: &ObjectRef) -> Touched {
        let key = (policy.kind, policy.namespace.clone(), policy.name.clone());
        self.enforced.rejected.remove(&key);
        let touched = self.enforced.compiled.remove(&key).into_iter().collect();
        self.changed(touched)
    }

    fn begin_list(&mut self, kind: Kind) {
        let Policies { compiled, rejected, .. } = &self.enforced;
        if !kind.is_policy() {
            return;
        }
        let known = compiled.keys().chain(rejected.keys()).filter(|key| key.0 == kind).cloned();
        self.listings.entry(kind).or_default().begin(known);
    }

    /// It is complete: enforced policies that it did not name are gone.
    fn end_list(&mut self, kind: Kind) -> Touched {
        let gone = self.listings.get_mut(&kind).and_then(Listing::end);
        let mut touched = Vec::new();
        for key in gone.into_iter().flatten() {
            self.enforced.rejected.remove(&key);
            touched.extend(self.enforced.compiled.remove(&key));
        }
        self.changed(touched)
    }

    /// A candidate is exactly this.
    pub fn candidate(
        &mut self,
        name: &Arc<str>,
        candidate: &Candidate,
        selection: &mut Selection,
    ) -> Touched {
        let known = self.candidates.get(name);
        let reserved = matches!(&**name, ENFORCED | DEFAULT_DENY | "");
        if reserved || known.is_none() && self.candidates.len() >= CANDIDATES_MAX {
            self.refuse(name, reserved);
            return Touched::Policies(Vec::new());
        }
        let policies = Policies::of_candidate(name, candidate, selection);
        let touched = match known {
            None => Touched::Everything,
            Some(known) if known.removed == policies.removed => {
                Touched::Policies(differing(&known.compiled, &policies.compiled))
            }
            Some(_) => Touched::Everything,
        };
        self.refused.remove(name);
        self.candidates.insert(name.clone(), policies);
        self.built &= touched.is_nothing();
        touched
    }

    /// There is no such candidate any more.
    pub fn candidate_gone(&mut self, name: &str) -> Touched {
        self.refused.remove(name);
        if self.candidates.remove(name).is_none() {
            return Touched::Policies(Vec::new());
        }
        self.built = false;
        Touched::Everything
    }

    /// Candidates, and how many there may be.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        (self.candidates.len() as u64, CANDIDATES_MAX as u64)
    }

    /// Builds the sets if anything changed.
    pub fn build(&mut self) {
        if self.built {
            return;
        }
        let enforced = PolicySet::new(ENFORCED.into(), self.enforced.compiled.values().cloned());
        let default_deny = enforced.renamed(DEFAULT_DENY.into()).with_default_deny_everywhere();
        self.sets = vec![enforced, default_deny];
        for (name, candidate) in &self.candidates {
            // The candidate's policy of the same name is what the enforced one would become.
            let kept = self.enforced.compiled.iter().filter(|(key, _)| {
                !candidate.compiled.contains_key(*key) && !candidate.removed.contains(*key)
            });
            let both = kept.map(|(_, policy)| policy).chain(candidate.compiled.values());
            self.sets.push(PolicySet::new(name.clone(), both.cloned()));
        }
        self.names = self.sets.iter().map(|set| set.name().clone()).collect();
        self.built = true;
    }

    /// `enforced`, `default-deny`, then the candidates in the order of their names. As last built.
    #[must_use]
    pub fn sets(&self) -> &[PolicySet] {
        &self.sets
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// What no set holds.
    #[must_use]
    pub fn rejections(&self) -> Vec<RejectedPolicy> {
        let listed = self.sources().flat_map(|(name, policies)| {
            policies.rejected.values().flatten().map(move |rejection| (name, rejection.clone()))
        });
        let refused = self.refused.iter().map(|(name, rejection)| (&**name, rejection.clone()));
        let removed = self.candidates.iter().flat_map(|(name, candidate)| {
            let missing = |key: &&PolicyKey| !self.enforced.compiled.contains_key(*key);
            candidate.removed.iter().filter(missing).map(|key| (&**name, removes_nothing(key)))
        });
        let more = (self.refused_more > 0).then(|| Rejection {
            object: "further candidates".to_owned(),
            field: "name".to_owned(),
            problem: format!("refused {} times: more than {CANDIDATES_MAX}", self.refused_more),
        });
        let more = more.map(|rejection| ("", rejection));
        as_rejected(listed.chain(refused).chain(removed).chain(more))
    }

    /// What is in a set but lets less pass than it says, or is in a candidate and does not count.
    #[must_use]
    pub fn notices(&self) -> Vec<RejectedPolicy> {
        as_rejected(self.sources().flat_map(|(name, policies)| {
            let notices = policies.compiled.values().flat_map(|policy| policy.notices()).cloned();
            let others = policies.others.iter().map(|kind| Rejection {
                object: format!("{kind:?}"),
                field: "kind".to_owned(),
                problem: "of a candidate only the network policies count".to_owned(),
            });
            notices.chain(others).map(move |notice| (name, notice))
        }))
    }

    fn sources(&self) -> impl Iterator<Item = (&str, &Policies)> {
        let candidates = self.candidates.iter().map(|(name, policies)| (&**name, policies));
        [(ENFORCED, &self.enforced)].into_iter().chain(candidates)
    }

    fn changed(&mut self, touched: Vec<Arc<CompiledPolicy>>) -> Touched {
        self.built &= touched.is_empty();
        Touched::Policies(touched)
    }

    fn refuse(&mut self, name: &Arc<str>, reserved: bool) {
        if self.refused.len() >= CANDIDATES_MAX && !self.refused.contains_key(name) {
            self.refused_more = self.refused_more.saturating_add(1);
            return;
        }
        let problem = if reserved {
            "this name is taken by Parapet itself".to_owned()
        } else {
            format!("more than {CANDIDATES_MAX} candidates")
        };
        let object = format!("candidate {name}");
        let rejection = Rejection { object, field: "name".to_owned(), problem };
        self.refused.insert(name.clone(), rejection);
    }
}

impl Touched {
    /// Whether nothing is judged otherwise than before.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Policies(policies) if policies.is_empty())
    }
}

impl Policies {
    fn of_candidate(name: &Arc<str>, candidate: &Candidate, selection: &mut Selection) -> Self {
        let mut policies = Self::default();
        for object in &candidate.objects {
            if object.kind().is_policy() {
                policies.insert(object, name, selection);
                continue;
            }
            policies.others.insert(object.kind());
        }
        for gone in &candidate.removed {
            policies.removed.insert((gone.kind, gone.namespace.clone(), gone.name.clone()));
        }
        policies
    }

    /// The policies this replaces and adds, if anything changes.
    fn insert(
        &mut self,
        object: &Object,
        origin: &Arc<str>,
        selection: &mut Selection,
    ) -> Vec<Arc<CompiledPolicy>> {
        let key = key_of(object);
        let full = self.compiled.len() >= POLICIES_MAX && !self.compiled.contains_key(&key);
        let compiled = match compile_object(object, origin) {
            None => return Vec::new(),
            Some(Ok(_)) if full => Err(vec![Rejection {
                object: format!("{:?} {}/{}", key.0, key.1, key.2),
                field: String::new(),
                problem: format!("more than {POLICIES_MAX} policies"),
            }]),
            Some(compiled) => compiled,
        };
        match compiled {
            Ok(compiled) => {
                self.rejected.remove(&key);
                if self.compiled.get(&key).is_some_and(|known| **known == compiled) {
                    return Vec::new();
                }
                let compiled = selection.link(compiled);
                let old = self.compiled.insert(key, compiled.clone());
                old.into_iter().chain([compiled]).collect()
            }
            Err(rejections) => {
                let old = self.compiled.remove(&key);
                if self.rejected.len() < REJECTIONS_MAX || self.rejected.contains_key(&key) {
                    self.rejected.insert(key, rejections);
                }
                old.into_iter().collect()
            }
        }
    }
}

fn key_of(object: &Object) -> PolicyKey {
    let meta = object.meta();
    (object.kind(), meta.namespace.clone(), meta.name.clone())
}

/// Those that only one of two has, or that are others in both.
fn differing(
    old: &BTreeMap<PolicyKey, Arc<CompiledPolicy>>,
    new: &BTreeMap<PolicyKey, Arc<CompiledPolicy>>,
) -> Vec<Arc<CompiledPolicy>> {
    let only = |one: &BTreeMap<PolicyKey, Arc<CompiledPolicy>>,
                other: &BTreeMap<PolicyKey, Arc<CompiledPolicy>>| {
        let differs =
            |(key, policy): &(&PolicyKey, &Arc<CompiledPolicy>)| other.get(*key) != Some(*policy);
        one.iter().filter(differs).map(|(_, policy)| policy.clone()).collect::<Vec<_>>()
    };
    [only(old, new), only(new, old)].concat()
}

fn removes_nothing((kind, namespace, name): &PolicyKey) -> Rejection {
    let slash = if namespace.is_empty() { "" } else { "/" };
    Rejection {
        object: format!("{kind:?} {namespace}{slash}{name}"),
        field: "metadata.name".to_owned(),
        problem: "is to be removed, and no such policy is enforced".to_owned(),
    }
}

fn as_rejected<'a>(all: impl Iterator<Item = (&'a str, Rejection)>) -> Vec<RejectedPolicy> {
    all.take(REJECTIONS_MAX)
        .map(|(name, rejection)| RejectedPolicy { policy_set: name.into(), rejection })
        .collect()
}
