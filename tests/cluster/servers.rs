//! The servers of this tier themselves, and the proxy that can fail: what they do is what the other
//! tests rely on.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use support::control_plane::audit::Asked;
use support::control_plane::{ControlPlane, Stand};
use support::fault_proxy::{Asking, Fault, FaultProxy, Order};
use support::node::Node;
use support::pod::PodSpec;
use support::process::Program;
use support::wire::{Body, Head};

use crate::world::World;

/// A client that follows nothing and tries nothing again.
struct Client {
    token: String,
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn new(address: &str, token: &str) -> Self {
        let address: SocketAddr = address.trim_start_matches("http://").parse().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { token: token.to_string(), stream, reader }
    }

    fn begin(&mut self, path: &str) -> Option<Head> {
        let head = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {}\r\n\r\n", self.token);
        self.stream.write_all(head.as_bytes()).ok()?;
        Head::read(&mut self.reader).ok()?
    }

    fn get(&mut self, path: &str) -> Option<(u16, String)> {
        let head = self.begin(path)?;
        let body = head.body(Body::Left(0)).read(&mut self.reader).ok()?;
        Some((head.word(1).parse().unwrap(), String::from_utf8(body).unwrap()))
    }

    fn piece(&mut self) -> Option<String> {
        let piece = Body::Chunked.piece(&mut self.reader).ok()?;
        Some(String::from_utf8(piece).unwrap())
    }
}

#[test]
fn a_control_plane_keeps_what_it_knows_and_writes_down_who_asked() {
    let mut world = World::start();
    world.namespace("a", &[]);
    let pod = world.pod(&PodSpec::new("a", "client"));
    let token = world.plane.account_token("parapet", "parapet").unwrap();
    let mut own = support::control_plane::api::Api::new(world.plane.door().clone(), &token);
    let listed = own.want("GET", "/api/v1/pods", &json!(null)).unwrap();
    assert_eq!(listed["items"][0]["metadata"]["uid"], pod.uid.as_str());
    assert_eq!(own.ask("GET", "/api/v1/secrets", "").unwrap().status, 403);

    world.plane.stop();
    assert!(world.api.ask("GET", "/readyz", "").is_err());
    let since = Instant::now();
    world.plane.resume().unwrap();
    assert!(since.elapsed() < Duration::from_secs(60));
    let again = world.plane.kubectl(&["get", "pods", "-A", "-o", "name"], "").unwrap();
    assert_eq!(again, format!("pod/{}\n", pod.name));
    // The token was signed by a key that outlives the server.
    assert_eq!(own.ask("GET", "/api/v1/pods", "").unwrap().status, 200);

    let asked = |what: &str, status| Asked {
        user: "system:serviceaccount:parapet:parapet".to_string(),
        verb: "list".to_string(),
        what: what.to_string(),
        namespace: None,
        status,
    };
    let all: Vec<_> = world.plane.asked().unwrap().into_iter().collect();
    assert_eq!(all, [asked("pods", 200), asked("secrets", 403)]);
}

#[test]
fn a_control_plane_on_the_node_reaches_its_pods() {
    let node = Node::start(&Program::at(env!("CARGO_BIN_EXE_parapet-traffic"))).unwrap();
    let plane = ControlPlane::start(&node, Stand::OnNode).unwrap();
    let version = plane.kubectl(&["get", "--raw", "/version"], "").unwrap();
    assert!(version.contains("\"gitVersion\": \"v1.3"), "{version}");
    assert!(plane.door().address.ip().to_string().starts_with("192.168.77."));
}

#[test]
fn the_proxy_hands_on_everything_and_fails_as_it_is_told() {
    let mut world = World::start();
    world.namespace("a", &[]);
    let pod = world.pod(&PodSpec::new("a", "client"));
    let proxy = FaultProxy::start(world.plane.door()).unwrap();
    let token = world.plane.account_token("parapet", "parapet").unwrap();
    let client = || Client::new(&proxy.url(), &token);
    let pods = "/api/v1/pods?resourceVersion=0";
    let since = Instant::now();

    let (status, body) = client().get(pods).unwrap();
    assert!(status == 200 && body.contains(&pod.uid), "{body}");
    proxy.order(Order::new(Fault::Gone).of("pods").times(1));
    proxy.order(Order::new(Fault::TooManyRequests(3)).of("pods").times(1));
    let mut one = client();
    assert_eq!(one.get(pods).unwrap().0, 410);
    let head = one.begin(pods).unwrap();
    assert_eq!((head.word(1), head.get("retry-after")), ("429", Some("3")));
    proxy.order(Order::new(Fault::CutAfter(10)).times(1));
    assert_eq!(client().get(pods), None);
    proxy.order(Order::new(Fault::Slow(100, Duration::from_millis(30))).times(1));
    let began = Instant::now();
    assert_eq!(client().get(pods).unwrap().1, body);
    assert!(began.elapsed() > Duration::from_millis(200));

    // A watch, with what is put before it, until it is cut.
    let watch = "/api/v1/pods?watch=true&resourceVersion=0";
    proxy.order(Order::new(Fault::Before("{}\n".to_string())).asking(&[Asking::Watch]).times(1));
    let mut watching = client();
    assert_eq!(watching.begin(watch).unwrap().word(1), "200");
    assert_eq!(watching.piece().unwrap(), "{}\n");
    assert!(watching.piece().unwrap().contains(&pod.uid));
    assert_eq!(proxy.cut_watches("nodes"), 0);
    assert_eq!(proxy.cut_watches("pods"), 1);
    assert_eq!(watching.piece(), None);
    proxy.order(Order::new(Fault::GoneEvent).asking(&[Asking::Watch]).times(1));
    assert!(client().get(watch).unwrap().1.contains("\"code\":410"));
    let bookmarks = Fault::BookmarksOnly(Duration::from_millis(5));
    proxy.order(Order::new(bookmarks).asking(&[Asking::Watch]).times(1));
    let mut watching = client();
    watching.begin("/api/v1/pods?watch=1&resourceVersion=77").unwrap();
    for _ in 0..3 {
        assert!(watching.piece().unwrap().contains("\"resourceVersion\":\"77\""));
    }

    proxy.refuse();
    std::thread::sleep(Duration::from_millis(50));
    let address: SocketAddr = proxy.url().trim_start_matches("http://").parse().unwrap();
    assert!(TcpStream::connect(address).is_err());
    proxy.heal();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(client().get("/version").unwrap().0, 200);
    let expected = [
        (("/version".to_string(), Asking::Other), 1),
        (("pods".to_string(), Asking::List), 5),
        (("pods".to_string(), Asking::Watch), 3),
    ];
    assert_eq!(proxy.counts_since(since), BTreeMap::from(expected));
}
