//! The policy sets: what is enforced, what is enforced with everything else denied, and candidates.
//!
//! In: NetworkPolicies as they come and go, and whole candidates. Out: [`PolicySet`]s in a fixed
//! order, and what was rejected. It judges nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::object::{Kind, NetworkPolicy, Object};
use crate::policy::{CompiledPolicy, PolicySet, Rejection, compile};
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

type PolicyKey = (String, String);

/// Policies of one source.
#[derive(Debug, Default)]
struct Policies {
    compiled: BTreeMap<PolicyKey, Arc<CompiledPolicy>>,
    rejected: BTreeMap<PolicyKey, Vec<Rejection>>,
}

/// All policy sets.
#[derive(Debug)]
pub(super) struct PolicySets {
    enforced: Policies,
    candidates: BTreeMap<Arc<str>, Policies>,
    /// Candidates that are no set at all.
    refused: BTreeMap<Arc<str>, Rejection>,
    sets: Vec<PolicySet>,
    names: Vec<Arc<str>>,
    built: bool,
}

impl Default for PolicySets {
    fn default() -> Self {
        Self {
            enforced: Policies::default(),
            candidates: BTreeMap::new(),
            refused: BTreeMap::new(),
            sets: Vec::new(),
            names: vec![ENFORCED.into(), DEFAULT_DENY.into()],
            built: false,
        }
    }
}

impl PolicySets {
    /// Whether what is enforced changed.
    pub(super) fn applied(&mut self, policy: &NetworkPolicy) -> bool {
        let changed = self.enforced.insert(policy, &ENFORCED.into());
        self.built &= !changed;
        changed
    }

    /// Whether what is enforced changed.
    pub(super) fn deleted(&mut self, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        self.enforced.rejected.remove(&key);
        let changed = self.enforced.compiled.remove(&key).is_some();
        self.built &= !changed;
        changed
    }

    /// What is enforced is exactly this. Whether that is a change.
    pub(super) fn replaced(&mut self, objects: &[Object]) -> bool {
        let policies = Policies::of(objects, &ENFORCED.into());
        let changed = policies.compiled != self.enforced.compiled;
        self.enforced = policies;
        self.built &= !changed;
        changed
    }

    /// A candidate is exactly this. Whether that is a change.
    pub(super) fn candidate(&mut self, name: &Arc<str>, objects: &[Object]) -> bool {
        let reserved = matches!(&**name, ENFORCED | DEFAULT_DENY | "");
        let full = self.candidates.len() >= CANDIDATES_MAX && !self.candidates.contains_key(name);
        if reserved || full {
            let problem = if reserved {
                "this name is taken by Parapet itself".to_owned()
            } else {
                format!("more than {CANDIDATES_MAX} candidates")
            };
            let object = format!("candidate {name}");
            if self.refused.len() < CANDIDATES_MAX {
                let rejection = Rejection { object, field: "name".to_owned(), problem };
                self.refused.insert(name.clone(), rejection);
            }
            return false;
        }
        let mut policies = Policies::of(objects, name);
        for object in objects.iter().filter(|object| object.kind() != Kind::NetworkPolicy) {
            let rejection = Rejection {
                object: format!("{:?}", object.kind()),
                field: "kind".to_owned(),
                problem: "a candidate holds NetworkPolicies only".to_owned(),
            };
            let others = policies.rejected.entry(PolicyKey::default()).or_default();
            if others.len() < REJECTIONS_MAX && !others.contains(&rejection) {
                others.push(rejection);
            }
        }
        let known = self.candidates.get(name);
        let changed = known.is_none_or(|known| known.compiled != policies.compiled);
        self.candidates.insert(name.clone(), policies);
        self.built &= !changed;
        changed
    }

    /// Whether this candidate was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.candidates.contains_key(name) || self.refused.contains_key(name)
    }

    /// Builds the sets if anything changed.
    pub(super) fn build(&mut self) {
        if self.built {
            return;
        }
        let enforced = self.enforced.compiled.values();
        let default_deny = PolicySet::new(DEFAULT_DENY.into(), enforced.clone().cloned())
            .with_default_deny_everywhere();
        self.sets = vec![PolicySet::new(ENFORCED.into(), enforced.cloned()), default_deny];
        for (name, candidate) in &self.candidates {
            // The candidate's policy of the same name is what the enforced one would become.
            let kept = self.enforced.compiled.iter();
            let kept = kept.filter(|(key, _)| !candidate.compiled.contains_key(*key));
            let both = kept.map(|(_, policy)| policy).chain(candidate.compiled.values());
            self.sets.push(PolicySet::new(name.clone(), both.cloned()));
        }
        self.names = self.sets.iter().map(|set| set.name().clone()).collect();
        self.built = true;
    }

    /// `enforced`, `default-deny`, then the candidates in the order of their names. As last built.
    pub(super) fn sets(&self) -> &[PolicySet] {
        &self.sets
    }

    /// Their names.
    pub(super) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    pub(super) fn rejections(&self) -> Vec<RejectedPolicy> {
        let enforced: Arc<str> = ENFORCED.into();
        let sources = [(&enforced, &self.enforced)].into_iter().chain(&self.candidates);
        let listed = sources.flat_map(|(name, policies)| {
            policies.rejected.values().flatten().map(move |rejection| (name, rejection))
        });
        listed
            .chain(&self.refused)
            .take(REJECTIONS_MAX)
            .map(|(name, rejection)| RejectedPolicy {
                policy_set: name.clone(),
                rejection: rejection.clone(),
            })
            .collect()
    }
}

impl Policies {
    fn of(objects: &[Object], origin: &Arc<str>) -> Self {
        let mut policies = Self::default();
        for object in objects {
            if let Object::NetworkPolicy(policy) = object {
                policies.insert(policy, origin);
            }
        }
        policies
    }

    /// Whether a set with these policies changed.
    fn insert(&mut self, policy: &NetworkPolicy, origin: &Arc<str>) -> bool {
        let meta = &policy.metadata;
        let key = (meta.namespace.clone(), meta.name.clone());
        let full = self.compiled.len() >= POLICIES_MAX && !self.compiled.contains_key(&key);
        let compiled = if full {
            Err(vec![Rejection {
                object: format!("NetworkPolicy {}/{}", key.0, key.1),
                field: String::new(),
                problem: format!("more than {POLICIES_MAX} policies"),
            }])
        } else {
            compile(policy, origin.clone())
        };
        match compiled {
            Ok(compiled) => {
                self.rejected.remove(&key);
                let unchanged = self.compiled.get(&key).is_some_and(|known| **known == compiled);
                if !unchanged {
                    self.compiled.insert(key, Arc::new(compiled));
                }
                !unchanged
            }
            Err(rejections) => {
                let changed = self.compiled.remove(&key).is_some();
                if self.rejected.len() < REJECTIONS_MAX || self.rejected.contains_key(&key) {
                    self.rejected.insert(key, rejections);
                }
                changed
            }
        }
    }
}
