//! What can go wrong, and for whom.
//!
//! In: a test's orders and a request. Out: the fault that this request meets. It does no I/O.

use std::time::Duration;

/// How a request asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asking {
    /// A list, or a page of one.
    List,
    /// A watch from a known version on.
    Watch,
    /// A watch that begins with everything there is (`sendInitialEvents`).
    StreamingList,
    /// Anything else.
    Other,
}

impl Asking {
    /// Of a path that is a collection, by what follows its `?`.
    #[must_use]
    pub fn of(method: &str, query: &str) -> Self {
        let has = |word: &str| query.split('&').any(|pair| pair == word);
        match method {
            "GET" if has("watch=true") || has("watch=1") => {
                if has("sendInitialEvents=true") {
                    Self::StreamingList
                } else {
                    Self::Watch
                }
            }
            "GET" => Self::List,
            _ => Self::Other,
        }
    }

    /// Whether its answer has no end.
    #[must_use]
    pub fn is_watch(self) -> bool {
        matches!(self, Self::Watch | Self::StreamingList)
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 410 Gone instead of an answer.
    Gone,
    /// A watch that is one event: an error with the code 410.
    GoneEvent,
    /// 422, as servers say it that have streaming lists switched off.
    NoStreaming,
    /// 429 with this many seconds in `Retry-After`.
    TooManyRequests(u32),
    /// 500, as while etcd is gone.
    Broken,
    /// The answer in pieces of at most so many bytes, with a pause before each.
    Slow(usize, Duration),
    /// These bytes before the body of the answer; an event of a watch ends with a newline.
    Before(String),
    /// This instead of the body.
    Instead(String),
    /// A watch without any event but a bookmark each so often.
    BookmarksOnly(Duration),
    /// The answer is cut after so many bytes of its body.
    CutAfter(usize),
    /// Nothing is ever said.
    Hang,
}

/// A fault, and the requests that meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What goes wrong.
    pub fault: Fault,
    /// Only for requests that ask so; empty for all.
    pub asking: Vec<Asking>,
    /// Only for this resource.
    pub resource: Option<String>,
    /// How often at most.
    pub times: Option<u32>,
}

impl Order {
    /// For every request, until it is healed.
    #[must_use]
    pub fn new(fault: Fault) -> Self {
        Self { fault, asking: Vec::new(), resource: None, times: None }
    }

    /// Only for requests that ask so.
    #[must_use]
    pub fn asking(mut self, asking: &[Asking]) -> Self {
        self.asking = asking.to_vec();
        self
    }

    /// Only for this resource.
    #[must_use]
    pub fn of(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_string());
        self
    }

    /// So often and no more.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    fn fits(&self, asking: Asking, resource: &str) -> bool {
        (self.asking.is_empty() || self.asking.contains(&asking))
            && self.resource.as_ref().is_none_or(|own| own == resource)
            && self.times != Some(0)
    }
}

/// The fault of the oldest order that fits, which has one time less now.
pub(super) fn take(orders: &mut [Order], asking: Asking, resource: &str) -> Option<Fault> {
    let order = orders.iter_mut().find(|order| order.fits(asking, resource))?;
    order.times = order.times.map(|times| times - 1);
    Some(order.fault.clone())
}

/// The name of the resource whose collection this is, in all namespaces or one; else the path.
pub(super) fn resource(path: &str) -> &str {
    let words: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let rest = match words.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => return path,
    };
    match rest {
        [resource] | ["namespaces", _, resource] => resource,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::{Asking, Fault, Order, resource, take};

    #[test]
    fn requests_are_told_apart_as_the_api_server_does() {
        for (path, expected) in [
            ("/api/v1/pods", "pods"),
            ("/api/v1/namespaces/a/configmaps", "configmaps"),
            ("/api/v1/namespaces", "namespaces"),
            ("/apis/networking.k8s.io/v1/networkpolicies", "networkpolicies"),
            ("/apis/networking.k8s.io/v1", "/apis/networking.k8s.io/v1"),
            ("/api/v1/namespaces/a/pods/b", "/api/v1/namespaces/a/pods/b"),
            ("/version", "/version"),
        ] {
            assert_eq!(resource(path), expected, "{path}");
        }
        assert_eq!(Asking::of("GET", "limit=500&resourceVersion=0"), Asking::List);
        assert_eq!(Asking::of("GET", "watch=true&resourceVersion=7"), Asking::Watch);
        let streaming = "sendInitialEvents=true&watch=true";
        assert_eq!(Asking::of("GET", streaming), Asking::StreamingList);
        assert_eq!(Asking::of("POST", ""), Asking::Other);
    }

    #[test]
    fn an_order_is_met_by_whom_it_is_for_and_so_often() {
        let only = Order::new(Fault::Gone).asking(&[Asking::Watch]).of("pods").times(1);
        let mut orders = vec![only, Order::new(Fault::Hang).of("nodes")];
        assert_eq!(take(&mut orders, Asking::List, "pods"), None);
        assert_eq!(take(&mut orders, Asking::Watch, "pods"), Some(Fault::Gone));
        assert_eq!(take(&mut orders, Asking::Watch, "pods"), None);
        let hang = [(); 2].map(|()| take(&mut orders, Asking::List, "nodes"));
        assert_eq!(hang, [Some(Fault::Hang), Some(Fault::Hang)]);
    }
}
