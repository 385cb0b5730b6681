//! By which name an outside address was asked for: what DNS told each pod, as of then.
//!
//! In: packets from DNS servers, and attempts with their times. Out: the names an address had for
//! this pod when it was used. It never says a name that the pod was told only later, and it holds
//! so much of each pod at most.
//!
//! Who answered is not looked at: a pod may ask any server, and what it was told is what it acted
//! upon. A pod can make up names for its own flows, and for nobody else's.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;

use self::streams::Streams;
use crate::flow::Timestamp;
use crate::record::{DnsCarrier, DnsRecord};

pub use self::decode::{ANSWER_ADDRESSES_MAX, Answer, Malformed, decode};
pub use self::streams::{STREAM_BYTES_MAX, STREAMS_MAX};

mod decode;
mod streams;

/// Pods, and cgroups of the node, whose names are known at once.
pub const OWNERS_MAX: usize = 16_384;
/// Names of addresses known at once.
pub const NAMES_MAX: usize = 65_536;
/// Those of one pod: one that asks for random names does not take the others' room.
pub const NAMES_PER_OWNER_MAX: usize = 2_048;
/// Names that one address has for one pod.
pub const NAMES_PER_ADDRESS_MAX: usize = 8;

/// Loss stage: messages from port 53 that are none of DNS.
pub const STAGE_NAMES_MALFORMED: &str = "names_malformed";
/// Loss stage: answers of which not every part was seen.
pub const STAGE_NAMES_SPLIT: &str = "names_split";
/// Loss stage: names that found no room.
pub const STAGE_NAMES_TABLE_FULL: &str = "names_table_full";

const SECOND_NS: u64 = 1_000_000_000;
/// A name holds at least so long, whatever its TTL: programs use an answer a little longer than
/// they may, and answers with a TTL of 0 are used at all.
const VALID_NS_MIN: u64 = 60 * SECOND_NS;
/// And at most so long, as most resolvers have it: TTLs may say decades.
const VALID_NS_MAX: u64 = 86_400 * SECOND_NS;
/// A name in use holds on after its TTL: pools and runtimes that never ask twice connect again and
/// again. Longer than the two hours after which Linux asks an idle connection whether it lives.
const USED_NS: u64 = 3 * 3600 * SECOND_NS;
/// What does not hold any more is still known for flows that are read late.
const LATE_NS: u64 = 600 * SECOND_NS;
/// How often all are looked through.
const AGE_EVERY_NS: u64 = 60 * SECOND_NS;

/// Who was told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A pod by its UID: containers of one pod may ask for one another.
    Pod(Arc<str>),
    /// A cgroup outside of pods, or of a pod that is not known.
    Cgroup(u64),
}

/// An attempt or more to reach an address, all within this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The address.
    pub address: IpAddr,
    /// Nothing happened before.
    pub since: Timestamp,
    /// Nothing happened after.
    pub until: Timestamp,
    /// Something began. Else it went on from an earlier use.
    pub is_attempt: bool,
}

/// Everything DNS told.
#[derive(Debug, Default)]
pub struct Names {
    owners: HashMap<Owner, Told>,
    entries: usize,
    streams: Streams,
    aged: Timestamp,
    malformed: u64,
    cut: u64,
    refused: u64,
}

/// What one owner was told.
#[derive(Debug, Default)]
struct Told {
    addresses: HashMap<IpAddr, Address>,
    entries: usize,
    aged: Timestamp,
}

#[derive(Debug, Default)]
struct Address {
    /// In the order they were first told.
    names: Vec<Entry>,
    /// Those of the last attempt.
    used: Option<(Arc<[Arc<str>]>, Timestamp)>,
}

/// One name of one address.
#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    /// Holds since then without a gap.
    since: Timestamp,
    /// Told last.
    newest: Timestamp,
    expires: Timestamp,
    used: Option<Timestamp>,
}

impl Names {
    /// Takes a packet from a DNS server.
    pub fn take(&mut self, owner: &Owner, record: DnsRecord) {
        match record.carrier {
            DnsCarrier::Udp { is_cut: true } => self.cut += 1,
            DnsCarrier::Udp { is_cut: false } => self.message(owner, record.payload, record.at),
            DnsCarrier::Tcp { cookie, sequence } => {
                let place = (cookie, sequence);
                for message in self.streams.take(place, &record.payload, record.at) {
                    self.message(owner, message, record.at);
                }
            }
        }
    }

    /// The names an address was used by, the one told last before the rest in their own order. None
    /// if nothing told one in time.
    pub fn used(&mut self, owner: &Owner, used: Use) -> Option<Arc<[Arc<str>]>> {
        let address =
            self.owners.get_mut(owner)?.addresses.get_mut(&used.address.to_canonical())?;
        if used.is_attempt { address.attempted(used) } else { address.went_on(used) }
    }

    /// Forgets, now and then, what does not hold any more.
    pub fn age(&mut self, now: Timestamp) {
        if now.0.saturating_sub(self.aged.0) < AGE_EVERY_NS {
            return;
        }
        self.aged = now;
        self.streams.age(now);
        self.owners.retain(|_, told| {
            told.age(now);
            told.entries > 0
        });
        self.entries = self.owners.values().map(|told| told.entries).sum();
    }

    /// What was lost since the start, by stage.
    #[must_use]
    pub fn lost(&self) -> [(&'static str, u64); 3] {
        [
            (STAGE_NAMES_MALFORMED, self.malformed),
            (STAGE_NAMES_SPLIT, self.cut + self.streams.split),
            (STAGE_NAMES_TABLE_FULL, self.refused),
        ]
    }

    /// Names known, and how many there may be.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        (self.entries as u64, NAMES_MAX as u64)
    }

    fn message(&mut self, owner: &Owner, mut message: Vec<u8>, at: Timestamp) {
        match decode(&mut message) {
            Ok(Some(answer)) => self.tell(owner, &answer, at),
            Ok(None) => {}
            Err(Malformed) => self.malformed += 1,
        }
    }

    fn tell(&mut self, owner: &Owner, answer: &Answer, at: Timestamp) {
        self.refused += answer.refused;
        if !self.owners.contains_key(owner) {
            if self.owners.len() >= OWNERS_MAX {
                self.refused += answer.addresses.len() as u64;
                return;
            }
            self.owners.insert(owner.clone(), Told::default());
        }
        let Some(told) = self.owners.get_mut(owner) else { return };
        for (address, ttl) in &answer.addresses {
            let before = told.entries;
            let room = self.entries < NAMES_MAX;
            if !told.tell(*address, &answer.name, (at, *ttl), room) {
                self.refused += 1;
            }
            self.entries = (self.entries + told.entries).saturating_sub(before);
        }
    }
}

impl Told {
    /// False: something found no room.
    fn tell(
        &mut self,
        address: IpAddr,
        name: &Arc<str>,
        (at, ttl): (Timestamp, u32),
        room: bool,
    ) -> bool {
        let valid = (u64::from(ttl) * SECOND_NS).clamp(VALID_NS_MIN, VALID_NS_MAX);
        let expires = Timestamp(at.0.saturating_add(valid));
        if let Some(known) = self.addresses.get_mut(&address)
            && let Some(entry) = known.names.iter_mut().find(|entry| entry.name == *name)
        {
            entry.again(at, expires);
            return true;
        }
        if self.entries >= NAMES_PER_OWNER_MAX {
            // Not for each answer of a flood.
            if at.0.saturating_sub(self.aged.0) >= SECOND_NS {
                self.age(at);
            }
        }
        if self.entries >= NAMES_PER_OWNER_MAX || !room {
            return false;
        }
        let known = self.addresses.entry(address).or_default();
        let made_room = known.names.len() >= NAMES_PER_ADDRESS_MAX && known.forget_oldest();
        self.entries += usize::from(!made_room);
        known.names.push(Entry { name: name.clone(), since: at, newest: at, expires, used: None });
        !made_room
    }

    fn age(&mut self, now: Timestamp) {
        self.aged = now;
        self.addresses.retain(|_, address| {
            address.names.retain(|entry| now.0 < entry.ends().0.saturating_add(LATE_NS));
            !address.names.is_empty()
        });
        self.entries = self.addresses.values().map(|address| address.names.len()).sum();
    }
}

impl Address {
    fn attempted(&mut self, used: Use) -> Option<Arc<[Arc<str>]>> {
        // Told while attempts were made: before or after, nobody knows.
        let holds = |entry: &&Entry| entry.since <= used.until && used.since < entry.ends();
        let told_before = |entry: &&Entry| entry.since <= used.since;
        let newest_before = |entry: &&Entry| {
            // What was told again later was told first at its beginning.
            if entry.newest <= used.since { entry.newest } else { entry.since }
        };
        let holding = self.names.iter().filter(holds);
        let first = holding.filter(told_before).max_by_key(newest_before)?.name.clone();
        let others = self.names.iter().filter(holds).filter(|entry| entry.name != first);
        let mut others: Vec<_> = others.map(|entry| entry.name.clone()).collect();
        others.sort_unstable();
        for entry in self.names.iter_mut().filter(|entry| entry.name == first) {
            entry.used = entry.used.max(Some(used.until));
        }
        let same =
            |known: &[Arc<str>]| known.first() == Some(&first) && known.get(1..) == Some(&*others);
        let names = match &self.used {
            Some((known, _)) if same(known) => known.clone(),
            _ => [first].into_iter().chain(others).collect(),
        };
        self.used = Some((Arc::clone(&names), used.until));
        Some(names)
    }

    fn went_on(&mut self, used: Use) -> Option<Arc<[Arc<str>]>> {
        let (names, last) = self.used.as_mut()?;
        if used.since.0.saturating_sub(last.0) > USED_NS {
            return None;
        }
        *last = used.until.max(*last);
        let (last, names) = (*last, names.clone());
        for entry in self.names.iter_mut().filter(|entry| Some(&entry.name) == names.first()) {
            entry.used = entry.used.max(Some(last));
        }
        Some(names)
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.names.iter().enumerate().min_by_key(|(_, entry)| entry.ends());
        let Some((at, _)) = oldest else { return false };
        self.names.remove(at);
        true
    }
}

impl Entry {
    /// It does not hold from then on.
    fn ends(&self) -> Timestamp {
        let used = self.used.map_or(0, |used| used.0.saturating_add(USED_NS));
        self.expires.max(Timestamp(used))
    }

    fn again(&mut self, at: Timestamp, expires: Timestamp) {
        if at >= self.ends() {
            self.since = at;
        }
        self.newest = self.newest.max(at);
        self.expires = self.expires.max(expires);
    }
}

#[cfg(test)]
mod tests;
