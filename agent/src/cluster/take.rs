//! What becomes of the objects of one watch.
//!
//! In: items and events of one resource, one by one. Out: [`Update`]s in their order, and the
//! watch's state. It asks nothing and holds no object.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use parapet_core::object::{Change, Kind};

use super::candidates::{Candidates, Staged};
use super::decode::{self, Head, Read, Told};
use super::peers::Peers;
use super::resource::{Resource, What};
use super::state::States;

/// What a live cluster tells the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// Objects came, changed or went.
    Changes(Vec<Change>),
    /// A policy set that is staged in ConfigMaps is now exactly this.
    Staged(Arc<str>, Staged),
    /// It is staged no more.
    Unstaged(Arc<str>),
    /// A lookup found no pod at this address.
    NobodyAt(IpAddr),
    /// Pods with these UIDs, which were looked up, are in use no more.
    Unused(Vec<String>),
}

/// How a stream goes on after an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// It does.
    Event,
    /// Everything is known up to this version.
    Bookmark { version: String, ends_list: bool },
    /// The server ended it: the JSON of a Status.
    Error(String),
    /// What was told cannot be read, so that nobody knows what was missed.
    Lost(String),
}

/// One resource on its way.
#[derive(Debug)]
pub(super) struct Take {
    pub(super) resource: &'static Resource,
    /// The version of the API it is asked in.
    pub(super) version: &'static str,
    states: Arc<States>,
    changes: Vec<Change>,
    candidates: Option<Candidates>,
    updates: Vec<Update>,
    /// Objects with problems of the list that runs.
    listing: Option<BTreeSet<String>>,
    objects: u64,
    /// Pods that lookups found: part of every list.
    peers: Option<Arc<Peers>>,
    /// Of pods of this node the parts are read, too. Empty if nobody knows which one it is: then of
    /// all.
    node: Arc<str>,
}

impl Take {
    pub(super) fn new(
        resource: &'static Resource,
        states: Arc<States>,
        refused: BTreeSet<Arc<str>>,
    ) -> Self {
        let candidates = (resource.what == What::Candidates).then(|| Candidates::new(refused));
        let version = resource.versions.first().copied().unwrap_or_default();
        let (changes, updates) = (Vec::new(), Vec::new());
        let (listing, objects, peers, node) = (None, 0, None, "".into());
        Self {
            resource,
            version,
            states,
            changes,
            candidates,
            updates,
            listing,
            objects,
            peers,
            node,
        }
    }

    /// This is the own node.
    pub(super) fn at(self, node: &str) -> Self {
        Self { node: node.into(), ..self }
    }

    /// Its lists are of this node only, and these are part of them.
    pub(super) fn with_peers(self, peers: Option<Arc<Peers>>) -> Self {
        Self { peers, ..self }
    }

    /// A full list begins, from nothing.
    pub(super) fn begin(&mut self) {
        self.listing = Some(BTreeSet::new());
        self.objects = 0;
        match (&mut self.candidates, self.resource.kind()) {
            (Some(candidates), _) => candidates.begin(),
            (None, Some(kind)) => self.changes.push(Change::Listing(kind)),
            (None, None) => {}
        }
    }

    /// The full list is complete.
    pub(super) fn end(&mut self) {
        let Some(named) = self.listing.take() else { return };
        self.states.change(self.resource.name, |state| {
            state.problems.retain(|object, _| named.contains(object));
        });
        match (&mut self.candidates, self.resource.kind()) {
            (Some(candidates), _) => candidates.end(),
            (None, Some(kind)) => {
                let peers = self.peers.as_ref().map(|peers| peers.pods()).unwrap_or_default();
                self.changes.extend(peers.into_iter().map(Change::Applied));
                self.changes.push(Change::Listed(kind));
            }
            (None, None) => {}
        }
    }

    /// An item of a list.
    pub(super) fn item(&mut self, item: &[u8]) {
        self.objects += 1;
        match self.resource.kind() {
            Some(kind) => {
                let mut read = decode::item(self.resource, kind, self.version, item);
                if read.is_pod_of(&self.node) {
                    decode::parts_of_item(item, &mut read);
                }
                self.applied(kind, read);
            }
            None => self.config_map(item),
        }
    }

    /// A line of a watch.
    pub(super) fn line(&mut self, line: &[u8]) -> Next {
        let told = match self.resource.kind() {
            Some(kind) => decode::event(self.resource, kind, self.version, line),
            None => match decode::raw_event(line) {
                Ok((true, _, object)) => Told::Deleted(decode::head(object.get().as_bytes())),
                Ok((false, is_new, object)) => {
                    self.objects += u64::from(is_new);
                    self.config_map(object.get().as_bytes());
                    return Next::Event;
                }
                Err(told) => *told,
            },
        };
        match (told, self.resource.kind()) {
            (Told::Applied { mut object, is_new }, Some(kind)) => {
                self.objects += u64::from(is_new);
                if object.is_pod_of(&self.node) {
                    decode::parts_of_event(line, &mut object);
                }
                self.applied(kind, object);
            }
            (Told::Deleted(head), kind) => self.gone(kind, head),
            (Told::Bookmark { version, ends_list }, _) => {
                return Next::Bookmark { version, ends_list };
            }
            (Told::Error(status), _) => return Next::Error(status),
            (Told::Unreadable(problem), _) => {
                self.problem("an event".to_owned(), problem.clone());
                return Next::Lost(problem);
            }
            (Told::Applied { .. }, None) => {}
        }
        Next::Event
    }

    /// An object that is too large to be read.
    pub(super) fn too_large(&mut self, beginning: &[u8]) {
        let text = String::from_utf8_lossy(beginning);
        let name = text.split_once("\"name\":\"").and_then(|(_, rest)| rest.split('"').next());
        let megabytes = super::body::OBJECT_BYTES_MAX >> 20;
        let problem = format!("is larger than {megabytes} MiB: not read");
        self.problem(name.unwrap_or("an object").to_owned(), problem);
    }

    /// Changes that have come and were not told yet.
    pub(super) fn waiting(&self) -> usize {
        self.changes.len()
    }

    /// What has come to be told.
    pub(super) fn updates(&mut self) -> Vec<Update> {
        if let Some(candidates) = &mut self.candidates {
            self.updates.append(&mut candidates.updates());
            let problems = candidates.problems();
            self.states.change(self.resource.name, |state| {
                state.problems.retain(|object, _| problems.contains_key(object));
                for (object, problem) in problems {
                    if state.problem(object.clone(), problem.clone()) {
                        tracing::warn!("{object}: {problem}");
                    }
                }
            });
        }
        if !self.changes.is_empty() {
            self.updates.push(Update::Changes(std::mem::take(&mut self.changes)));
        }
        let objects = self.objects;
        self.states.change(self.resource.name, |state| state.objects = objects);
        std::mem::take(&mut self.updates)
    }

    fn applied(&mut self, kind: Kind, read: Read) {
        let head = match &read.object {
            Ok(object) if read.problem.is_some() => Head::of(object),
            Err(head) => head.clone(),
            Ok(_) => Head::default(),
        };
        let is_whole = read.problem.is_none() && read.object.is_ok();
        if !is_whole {
            let problem = read.problem.unwrap_or_else(|| "cannot be read".to_owned());
            self.problem(head.shown(), problem);
        } else if self.listing.is_none()
            && let Ok(object) = &read.object
        {
            let shown = Head::of(object).shown();
            self.states.change(self.resource.name, |state| {
                state.problems.remove(&shown);
            });
        }
        match read.object {
            Ok(object) => self.changes.push(Change::Applied(object)),
            // As after a list: of what cannot be read nothing is known, not what it was before.
            Err(head) if !head.name.is_empty() => self.changes.push(head.deleted(kind)),
            Err(_) => {}
        }
    }

    fn gone(&mut self, kind: Option<Kind>, head: Head) {
        self.objects = self.objects.saturating_sub(1);
        let shown = head.shown();
        self.states.change(self.resource.name, |state| {
            state.problems.remove(&shown);
        });
        match (&mut self.candidates, kind) {
            (Some(candidates), _) => candidates.gone(&head),
            (None, Some(kind)) => self.changes.push(head.deleted(kind)),
            (None, None) => {}
        }
    }

    fn config_map(&mut self, object: &[u8]) {
        let Some(candidates) = &mut self.candidates else { return };
        if let Err(problem) = candidates.applied(object) {
            self.problem(decode::head(object).shown(), problem);
        }
    }

    fn problem(&mut self, object: String, problem: String) {
        let resource = self.resource;
        if let Some(named) = &mut self.listing {
            named.insert(object.clone());
        }
        self.states.change(resource.name, |state| {
            if state.problem(object.clone(), problem.clone()) {
                tracing::warn!("{} {object}: {problem}", resource.api_kind);
            }
        });
    }
}
