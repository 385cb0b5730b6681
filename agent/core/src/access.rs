//! Who may do what: service accounts, roles and bindings, as of now.
//!
//! In: applied, deleted and listed objects of these kinds. Out: [`Account`]s, [`RoleFacts`] and
//! [`BindingFacts`] by name, in shared allocations: charts install the same roles again and again.
//! It judges nothing, and no verdict about a flow depends on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;

use crate::identity::intern::Interner;
use crate::listing::Listing;
use crate::object::{AccessSubject, Change, Kind, LabelSelector, Object, PolicyRule, RoleRef};
use crate::policy::Labels;

/// ServiceAccounts known at once. Further ones are refused and counted, here and below.
pub const SERVICE_ACCOUNTS_MAX: usize = 131_072;
/// Roles known at once.
pub const ROLES_MAX: usize = 65_536;
/// ClusterRoles known at once.
pub const CLUSTER_ROLES_MAX: usize = 16_384;
/// RoleBindings known at once.
pub const ROLE_BINDINGS_MAX: usize = 131_072;
/// ClusterRoleBindings known at once.
pub const CLUSTER_ROLE_BINDINGS_MAX: usize = 32_768;
/// Rules of one role. One with more is refused as a whole: half of it would grant too little.
pub const RULES_MAX: usize = 4_096;
/// Subjects of one binding. One with more is refused as a whole.
pub const SUBJECTS_MAX: usize = 16_384;

/// Namespace, empty for cluster-scoped kinds, and name.
pub type Name = (Arc<str>, Arc<str>);

/// A list of words that many rules share.
pub type Words = Arc<[Arc<str>]>;

/// One ServiceAccount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// `automountServiceAccountToken`; a pod's own field wins.
    pub automount: Option<bool>,
}

/// One rule of a role, see [`PolicyRule`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "fields are those of the API")]
pub struct Rule {
    pub verbs: Words,
    pub api_groups: Words,
    pub resources: Words,
    pub resource_names: Words,
    pub non_resource_urls: Words,
}

/// One Role or ClusterRole.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleFacts {
    /// `rules`; of an aggregated role as the cluster last summed them up.
    pub rules: Arc<[Rule]>,
    /// Of a ClusterRole, sorted by key: others are summed up by them. Of a Role none are kept.
    pub labels: Box<Labels>,
    /// `aggregationRule.clusterRoleSelectors`; none if the role has no such rule.
    pub aggregates: Option<Box<[LabelSelector]>>,
}

/// One RoleBinding or ClusterRoleBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingFacts {
    /// Whether the role is a ClusterRole; else it is one of the binding's namespace.
    pub cluster_role: bool,
    /// The role's name.
    pub role: Arc<str>,
    /// Who gets it.
    pub subjects: Box<[Subject]>,
}

/// Whom a binding names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// By name.
    User(Arc<str>),
    /// By name.
    Group(Arc<str>),
    /// By namespace and name.
    ServiceAccount(Arc<str>, Arc<str>),
}

/// Everything known of who may do what.
#[derive(Debug)]
pub struct Access {
    accounts: Table<Account>,
    roles: Table<RoleFacts>,
    cluster_roles: Table<RoleFacts>,
    role_bindings: Table<BindingFacts>,
    cluster_role_bindings: Table<BindingFacts>,
    interner: Interner,
    /// Objects with more rules or subjects than one may have.
    refused: u64,
}

#[derive(Debug)]
struct Table<T> {
    by_name: HashMap<Name, T>,
    listing: Listing<Name>,
    max: usize,
    refused: u64,
    /// Entries that were dropped since somebody asked.
    dropped: usize,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            accounts: Table::with_max(SERVICE_ACCOUNTS_MAX),
            roles: Table::with_max(ROLES_MAX),
            cluster_roles: Table::with_max(CLUSTER_ROLES_MAX),
            role_bindings: Table::with_max(ROLE_BINDINGS_MAX),
            cluster_role_bindings: Table::with_max(CLUSTER_ROLE_BINDINGS_MAX),
            interner: Interner::default(),
            refused: 0,
        }
    }
}

impl Access {
    /// Takes one change. Those of other kinds are nothing here.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Applied(object) => self.applied(object),
            Change::Deleted(object) => {
                let name = (object.namespace.as_str().into(), object.name.as_str().into());
                match object.kind {
                    Kind::ServiceAccount => self.accounts.delete(&name),
                    Kind::Role => self.roles.delete(&name),
                    Kind::ClusterRole => self.cluster_roles.delete(&name),
                    Kind::RoleBinding => self.role_bindings.delete(&name),
                    Kind::ClusterRoleBinding => self.cluster_role_bindings.delete(&name),
                    _ => {}
                }
            }
            Change::Listing(kind) => match kind {
                Kind::ServiceAccount => self.accounts.begin(),
                Kind::Role => self.roles.begin(),
                Kind::ClusterRole => self.cluster_roles.begin(),
                Kind::RoleBinding => self.role_bindings.begin(),
                Kind::ClusterRoleBinding => self.cluster_role_bindings.begin(),
                _ => {}
            },
            Change::Listed(kind) => match kind {
                Kind::ServiceAccount => self.accounts.end(),
                Kind::Role => self.roles.end(),
                Kind::ClusterRole => self.cluster_roles.end(),
                Kind::RoleBinding => self.role_bindings.end(),
                Kind::ClusterRoleBinding => self.cluster_role_bindings.end(),
                _ => {}
            },
        }
        let dropped = self.accounts.take_dropped()
            + self.roles.take_dropped()
            + self.cluster_roles.take_dropped()
            + self.role_bindings.take_dropped()
            + self.cluster_role_bindings.take_dropped();
        self.interner.released((dropped, self.len()));
    }

    /// The ServiceAccount of this namespace and name.
    #[must_use]
    pub fn account(&self, namespace: &str, name: &str) -> Option<&Account> {
        self.accounts.get(namespace, name)
    }

    /// The Role of this namespace and name.
    #[must_use]
    pub fn role(&self, namespace: &str, name: &str) -> Option<&RoleFacts> {
        self.roles.get(namespace, name)
    }

    /// The ClusterRole of this name.
    #[must_use]
    pub fn cluster_role(&self, name: &str) -> Option<&RoleFacts> {
        self.cluster_roles.get("", name)
    }

    /// Every ClusterRole, in no order.
    pub fn cluster_roles(&self) -> impl Iterator<Item = (&Name, &RoleFacts)> {
        self.cluster_roles.by_name.iter()
    }

    /// Every RoleBinding, in no order.
    pub fn role_bindings(&self) -> impl Iterator<Item = (&Name, &BindingFacts)> {
        self.role_bindings.by_name.iter()
    }

    /// Every ClusterRoleBinding, in no order.
    pub fn cluster_role_bindings(&self) -> impl Iterator<Item = (&Name, &BindingFacts)> {
        self.cluster_role_bindings.by_name.iter()
    }

    /// Table name to (entries, capacity).
    #[must_use]
    pub fn tables(&self) -> BTreeMap<&'static str, (u64, u64)> {
        [
            ("service_accounts", self.accounts.sizes()),
            ("roles", self.roles.sizes()),
            ("cluster_roles", self.cluster_roles.sizes()),
            ("role_bindings", self.role_bindings.sizes()),
            ("cluster_role_bindings", self.cluster_role_bindings.sizes()),
        ]
        .into()
    }

    /// Objects that found their table full, or are too big to be kept.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
            + self.accounts.refused
            + self.roles.refused
            + self.cluster_roles.refused
            + self.role_bindings.refused
            + self.cluster_role_bindings.refused
    }

    fn len(&self) -> usize {
        self.accounts.by_name.len()
            + self.roles.by_name.len()
            + self.cluster_roles.by_name.len()
            + self.role_bindings.by_name.len()
            + self.cluster_role_bindings.by_name.len()
    }

    fn applied(&mut self, object: &Object) {
        let meta = object.meta();
        let name = (self.interner.text(&meta.namespace), self.interner.text(&meta.name));
        match object {
            Object::ServiceAccount(account) => {
                let automount = account.automount_service_account_token;
                self.accounts.insert(name, Account { automount });
            }
            Object::Role(role) => {
                let Some(rules) = self.rules(&role.rules) else { return };
                let (labels, aggregates) = ([].into(), None);
                self.roles.insert(name, RoleFacts { rules, labels, aggregates });
            }
            Object::ClusterRole(role) => {
                let Some(rules) = self.rules(&role.rules) else { return };
                let labels = self.interner.selector(&role.metadata.labels);
                let aggregates = role.aggregation_rule.as_ref();
                let aggregates =
                    aggregates.map(|rule| rule.cluster_role_selectors.as_slice().into());
                self.cluster_roles.insert(name, RoleFacts { rules, labels, aggregates });
            }
            Object::RoleBinding(binding) => {
                if let Some(facts) = self.binding(&binding.role_ref, &binding.subjects, &name.0) {
                    self.role_bindings.insert(name, facts);
                }
            }
            Object::ClusterRoleBinding(binding) => {
                if let Some(facts) = self.binding(&binding.role_ref, &binding.subjects, &name.0) {
                    self.cluster_role_bindings.insert(name, facts);
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, rules: &[PolicyRule]) -> Option<Arc<[Rule]>> {
        if rules.len() > RULES_MAX {
            self.refused += 1;
            return None;
        }
        let interner = &mut self.interner;
        let rules: Vec<_> = rules
            .iter()
            .map(|rule| Rule {
                verbs: interner.words(&rule.verbs),
                api_groups: interner.words(&rule.api_groups),
                resources: interner.words(&rule.resources),
                resource_names: interner.words(&rule.resource_names),
                non_resource_urls: interner.words(&rule.non_resource_urls),
            })
            .collect();
        Some(interner.rules(rules))
    }

    fn binding(
        &mut self,
        role: &RoleRef,
        subjects: &[AccessSubject],
        namespace: &Arc<str>,
    ) -> Option<BindingFacts> {
        if subjects.len() > SUBJECTS_MAX {
            self.refused += 1;
            return None;
        }
        let interner = &mut self.interner;
        let subjects = subjects.iter().filter_map(|subject| {
            let name = interner.text(&subject.name);
            match subject.kind.as_str() {
                "User" => Some(Subject::User(name)),
                "Group" => Some(Subject::Group(name)),
                // The API server wants the namespace; files written by hand may lack it.
                "ServiceAccount" if subject.namespace.is_empty() => {
                    Some(Subject::ServiceAccount(namespace.clone(), name))
                }
                "ServiceAccount" => {
                    Some(Subject::ServiceAccount(interner.text(&subject.namespace), name))
                }
                _ => None,
            }
        });
        let subjects = subjects.collect();
        let role_name = interner.text(&role.name);
        Some(BindingFacts { cluster_role: role.kind == "ClusterRole", role: role_name, subjects })
    }
}

impl<T: PartialEq> Table<T> {
    fn with_max(max: usize) -> Self {
        Self {
            by_name: HashMap::default(),
            listing: Listing::default(),
            max,
            refused: 0,
            dropped: 0,
        }
    }

    fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        self.by_name.get(&(namespace.into(), name.into()))
    }

    fn insert(&mut self, name: Name, facts: T) {
        self.listing.named(&name);
        let is_full = self.by_name.len() >= self.max;
        match self.by_name.get_mut(&name) {
            Some(known) if *known == facts => {}
            Some(known) => {
                *known = facts;
                self.dropped += 1;
            }
            None if is_full => self.refused += 1,
            None => {
                self.by_name.insert(name, facts);
            }
        }
    }

    fn delete(&mut self, name: &Name) {
        self.dropped += usize::from(self.by_name.remove(name).is_some());
    }

    fn begin(&mut self) {
        self.listing.begin(self.by_name.keys().cloned());
    }

    fn end(&mut self) {
        self.listing.end().into_iter().flatten().for_each(|name| self.delete(&name));
    }

    fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn sizes(&self) -> (u64, u64) {
        (self.by_name.len() as u64, self.max as u64)
    }
}

#[cfg(test)]
mod tests;
