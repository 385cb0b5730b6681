//! What connection tracking knows of each record, put into the record before the engine sees it.
//!
//! In: records as the sensor read them. Out: the same records with their
//! [`Translation`](parapet_core::identity::Translation), in the order they came but for those that
//! wait for the table to be read, which is at most a second or fifty times what reading costs. It
//! looks up no object and never fails: without a table every record passes as it is.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashSet};
use parapet_core::flow::{Direction, Protocol};
use parapet_core::identity::SourceSeen;
use parapet_core::record::{FlowRecord, Record};

use super::{Conntrack, Tuple};

/// The table is read at most so often for sources that were asked for before.
const READ_EVERY: Duration = Duration::from_secs(10);
/// .. and so often for sources that never were.
const FIRST_READ_EVERY: Duration = Duration::from_secs(1);
/// Reading takes at most one part of the time in so many.
const READ_SHARE: u32 = 50;
/// How long until a table that could not be read is tried again.
const OPEN_EVERY: Duration = Duration::from_secs(30);
/// Records that wait for the table at most; further ones pass as they are.
const HELD_MAX: usize = 4_096;
/// Sources known at once, of either kind.
const SOURCES_MAX: usize = 65_536;
/// Connections whose backend is known at once, in each of two generations.
const BACKENDS_MAX: usize = 32_768;

/// What a target sees of somebody: protocol, the target itself, the source address.
type Source = (Protocol, SocketAddr, IpAddr);

/// Puts into records what connection tracking knows.
#[derive(Debug)]
pub struct Translator {
    table: Option<Conntrack>,
    open_at: Instant,
    own: HashSet<IpAddr>,
    /// Two generations: the older one is forgotten when the younger is full.
    backends: [HashMap<Tuple, SocketAddr>; 2],
    /// Of whom the newest read of the table told.
    asked: HashSet<Source>,
    /// Those of them that are somebody else.
    rewritten: HashSet<Source>,
    /// The newest read was of the whole table.
    complete: bool,
    held: Vec<FlowRecord>,
    read_at: Option<Instant>,
    read_cost: Duration,
}

impl Translator {
    /// Opens the table; without one every record passes as it is.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let mut translator = Self {
            table: None,
            open_at: now,
            own: HashSet::default(),
            backends: [HashMap::default(), HashMap::default()],
            asked: HashSet::default(),
            rewritten: HashSet::default(),
            complete: true,
            held: Vec::new(),
            read_at: None,
            read_cost: Duration::ZERO,
        };
        translator.open(now);
        translator
    }

    /// The node's own addresses: only traffic from these may be somebody else's.
    pub fn set_own(&mut self, addrs: &[IpAddr]) {
        self.own = addrs.iter().map(IpAddr::to_canonical).collect();
    }

    /// Records that wait for the table.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Fills in what is known of these records, and gives back those that waited for it too.
    pub fn translate(&mut self, records: Vec<Record>, now: Instant) -> Vec<Record> {
        self.open(now);
        self.read_if_due(&records, now);
        let mut passed = Vec::with_capacity(records.len() + self.held.len());
        for flow in std::mem::take(&mut self.held) {
            self.pass(flow, &mut passed);
        }
        for record in records {
            match record {
                Record::Flow(mut flow) => {
                    self.find_backend(&mut flow);
                    self.pass(flow, &mut passed);
                }
                other => passed.push(other),
            }
        }
        passed
    }

    /// Gives back what still waits, as it is.
    pub fn release(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.held).into_iter().map(Record::Flow).collect()
    }

    fn open(&mut self, now: Instant) {
        if self.table.is_some() || now < self.open_at {
            return;
        }
        match Conntrack::open() {
            Ok(table) => self.table = Some(table),
            Err(error) => self.lose_table(error, now),
        }
    }

    fn lose_table(&mut self, error: super::Unavailable, now: Instant) {
        tracing::warn!(%error, "connection tracking cannot be asked: see `parapet doctor`");
        self.table = None;
        self.open_at = now + OPEN_EVERY;
        self.asked.clear();
        self.rewritten.clear();
    }

    /// The connection's backend: asked when it begins, remembered while it lasts, because the
    /// table forgets it sooner than the last counts are read.
    fn find_backend(&mut self, flow: &mut FlowRecord) {
        let Some(tuple) = connection(flow) else { return };
        let known = self.backends.iter().find_map(|known| known.get(&tuple)).copied();
        // A port is used again: what began may have gone elsewhere than the one before.
        let asked =
            if known.is_none() || flow.counts.attempts > 0 { self.ask(&tuple) } else { None };
        if let Some(backend) = asked
            && Some(backend) != known
        {
            if self.backends[0].len() >= BACKENDS_MAX {
                self.backends.swap(0, 1);
                self.backends[0].clear();
            }
            self.backends[0].insert(tuple, backend);
        }
        flow.translation.backend = asked.or(known);
    }

    fn ask(&mut self, tuple: &Tuple) -> Option<SocketAddr> {
        let table = self.table.as_mut()?;
        match table.entry(tuple) {
            // Nothing led it elsewhere: the Service has no rule, or it is not the kernel's.
            Ok(found) => {
                found.map(|entry| entry.reply.source).filter(|backend| *backend != tuple.target)
            }
            Err(error) => {
                tracing::debug!(%error, "a connection's backend could not be asked for");
                None
            }
        }
    }

    fn read_if_due(&mut self, records: &[Record], now: Instant) {
        let flows = || {
            let new = records.iter().filter_map(|record| match record {
                Record::Flow(flow) => Some(flow),
                _ => None,
            });
            self.held.iter().chain(new)
        };
        let since = |least: Duration| {
            let least = least.max(self.read_cost * READ_SHARE);
            self.read_at.is_none_or(|read_at| now.duration_since(read_at) >= least)
        };
        let sources = || flows().filter_map(|flow| Some((self.source(flow)?, flow)));
        let wanted = if since(READ_EVERY) {
            sources()
                .any(|(source, flow)| flow.counts.attempts > 0 || !self.asked.contains(&source))
        } else {
            since(FIRST_READ_EVERY) && sources().any(|(source, _)| !self.asked.contains(&source))
        };
        if !wanted {
            return;
        }
        let asked: Vec<Source> = sources().map(|(source, _)| source).collect();
        self.read(asked, now);
    }

    fn read(&mut self, asked: Vec<Source>, now: Instant) {
        let Some(table) = self.table.as_mut() else { return };
        let (own, rewritten) = (&self.own, &mut self.rewritten);
        rewritten.clear();
        let began = Instant::now();
        let mut refused = false;
        let read = table.rewritten(|entry| {
            let (seen, began) = (entry.reply.target.ip(), entry.original.source.ip());
            // From one of the node's addresses to another: it is the node all the same.
            if !own.contains(&seen) || own.contains(&began) {
                return;
            }
            refused |= rewritten.len() >= SOURCES_MAX;
            if !refused {
                rewritten.insert((entry.reply.protocol, entry.reply.source, seen));
            }
        });
        self.read_cost = began.elapsed();
        self.read_at = Some(now);
        match read {
            Ok(whole) => {
                self.complete = whole && !refused;
                if self.asked.len().saturating_add(asked.len()) > SOURCES_MAX {
                    self.asked.clear();
                }
                self.asked.extend(asked);
            }
            Err(error) => self.lose_table(error, now),
        }
    }

    /// Whom the target of this flow sees, if that may be somebody else.
    fn source(&self, flow: &FlowRecord) -> Option<Source> {
        let peer = flow.peer.to_canonical();
        let local = flow.local_addr?.to_canonical();
        // Between two of its own addresses nothing leaves the node.
        let is_wanted = self.table.is_some()
            && flow.direction == Some(Direction::Ingress)
            && self.own.contains(&peer)
            && !self.own.contains(&local)
            && !local.is_loopback();
        is_wanted.then(|| (flow.protocol, SocketAddr::new(local, flow.service_port), peer))
    }

    fn pass(&mut self, mut flow: FlowRecord, passed: &mut Vec<Record>) {
        if let Some(source) = self.source(&flow) {
            flow.translation.source = if self.rewritten.contains(&source) {
                SourceSeen::Rewritten
            } else if !self.asked.contains(&source) {
                if self.held.len() < HELD_MAX {
                    self.held.push(flow);
                    return;
                }
                SourceSeen::NotAsked
            } else if self.complete {
                SourceSeen::Kept
            } else {
                SourceSeen::NotAsked
            };
        }
        passed.push(Record::Flow(flow));
    }
}

/// The tuple by which the kernel knows the connection; none if the record is not one connection.
fn connection(flow: &FlowRecord) -> Option<Tuple> {
    let source = SocketAddr::new(flow.local_addr?.to_canonical(), flow.local_port?.get());
    let target = SocketAddr::new(flow.peer.to_canonical(), flow.service_port);
    let is_ours = flow.direction == Some(Direction::Egress);
    is_ours.then_some(Tuple { protocol: flow.protocol, source, target })
}
