//! What stands between an agent and the API server, and can fail in every way that a server and a
//! network can.
//!
//! In: plain HTTP on loopback, with the agent's own token, and faults that a test orders. Out: the
//! same requests over TLS, the server's answers, and a list of what was asked. Without an order it
//! changes nothing but the compression of answers.

mod fault;
mod relay;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::control_plane::api::Door;
pub use fault::{Asking, Fault, Order};

/// How often it looks for a new connection.
const PAUSE: Duration = Duration::from_millis(2);

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it came.
    pub at: Instant,
    /// How it asked.
    pub asking: Asking,
    /// `pods`; a path that is no collection of a resource is here whole, without what follows `?`.
    pub resource: String,
    /// All that followed `?`.
    pub query: String,
    /// Whether a fault answered it, or tampered with its answer.
    pub is_faulted: bool,
}

/// A running proxy. Dropping it cuts every connection.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    door: Door,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    orders: Vec<Order>,
    requests: Vec<Request>,
    /// Both sockets of each connection, and what it is busy with.
    open: HashMap<u64, Open>,
    next: u64,
    is_refusing: bool,
    is_over: bool,
}

#[derive(Debug, Default)]
struct Open {
    sockets: Vec<TcpStream>,
    busy: Option<(Asking, String)>,
}

impl Open {
    fn cut(&self) {
        for socket in &self.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl FaultProxy {
    /// Starts one before this API server.
    ///
    /// # Errors
    /// If no port is free.
    pub fn start(door: &Door) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { door: door.clone(), state: Mutex::default() });
        let own = shared.clone();
        let accepting = Some(thread::spawn(move || own.accept(address, listener)));
        Ok(Self { address, shared, accepting })
    }

    /// What stands in a kubeconfig as the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Orders a fault; of several that fit a request, the oldest is taken.
    pub fn order(&self, order: Order) {
        self.shared.state().orders.push(order);
    }

    /// From now on nothing fails. What hangs goes on hanging until it is cut.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.orders.clear();
        state.is_refusing = false;
    }

    /// Cuts every connection and listens no more, until [`Self::heal`].
    pub fn refuse(&self) {
        self.shared.state().is_refusing = true;
        self.cut();
    }

    /// Cuts every connection, in the middle of whatever is on it.
    pub fn cut(&self) {
        self.shared.state().open.values().for_each(Open::cut);
    }

    /// Cuts the connections that carry a watch of this resource, and says how many.
    pub fn cut_watches(&self, resource: &str) -> usize {
        let state = self.shared.state();
        let is_meant = |open: &&Open| {
            let busy = open.busy.as_ref();
            busy.is_some_and(|(asking, own)| asking.is_watch() && own == resource)
        };
        state.open.values().filter(is_meant).map(Open::cut).count()
    }

    /// All requests until now, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// How often each resource was asked for in each way since then.
    #[must_use]
    pub fn counts_since(&self, then: Instant) -> BTreeMap<(String, Asking), usize> {
        let mut counts = BTreeMap::new();
        for request in self.shared.state().requests.iter().filter(|request| request.at >= then) {
            *counts.entry((request.resource.clone(), request.asking)).or_default() += 1;
        }
        counts
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.cut();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until it is over; refusing means that nobody listens.
    fn accept(self: Arc<Self>, address: SocketAddr, first: TcpListener) {
        let mut listener = Some(first);
        loop {
            let (is_over, is_refusing) = {
                let state = self.state();
                (state.is_over, state.is_refusing)
            };
            if is_over {
                return;
            }
            if is_refusing {
                listener = None;
            } else if listener.is_none() {
                listener = TcpListener::bind(address).ok();
            }
            if let Some(stream) = listener.as_ref().and_then(accepted) {
                let own = self.clone();
                thread::spawn(move || own.serve(stream));
            } else {
                thread::sleep(PAUSE);
            }
        }
    }

    fn serve(&self, stream: TcpStream) {
        let number = {
            let mut state = self.state();
            state.next += 1;
            let number = state.next;
            state.open.insert(number, Open::default());
            number
        };
        if self.hold(number, &stream).is_ok() {
            // What ends a connection is what a test ordered, or the agent's own wish.
            let _ = relay::serve(self, number, stream);
        }
        let open = self.state().open.remove(&number);
        // The agent has to hear that it is over even while another thread holds a copy.
        open.unwrap_or_default().cut();
    }

    /// From now on this socket is cut with its connection.
    fn hold(&self, number: u64, socket: &TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if state.is_over || state.is_refusing {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if let Some(open) = state.open.get_mut(&number) {
            open.sockets.push(socket.try_clone()?);
        }
        Ok(())
    }

    /// Writes a request down and says which fault it meets.
    fn begin(&self, number: u64, asking: Asking, resource: &str, query: &str) -> Option<Fault> {
        let mut state = self.state();
        let fault = fault::take(&mut state.orders, asking, resource);
        let (resource, query) = (resource.to_string(), query.to_string());
        if let Some(open) = state.open.get_mut(&number) {
            open.busy = Some((asking, resource.clone()));
        }
        let (at, is_faulted) = (Instant::now(), fault.is_some());
        state.requests.push(Request { at, asking, resource, query, is_faulted });
        fault
    }

    fn end(&self, number: u64) {
        if let Some(open) = self.state().open.get_mut(&number) {
            open.busy = None;
        }
    }

    fn is_cut(&self, socket: &TcpStream) -> bool {
        // A socket that was shut down has nobody at its other end any more.
        self.state().is_over || socket.peer_addr().is_err()
    }
}

fn accepted(listener: &TcpListener) -> Option<TcpStream> {
    listener.set_nonblocking(true).ok()?;
    let (stream, _) = listener.accept().ok()?;
    stream.set_nonblocking(false).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}
