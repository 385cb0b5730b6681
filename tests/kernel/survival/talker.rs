//! A process of a pod that talks on sockets which stay open: one TCP connection and one UDP socket.
//!
//! In: one byte of stdin for each thing it says. Out: one byte of stdout when it has said it. It
//! ends when its stdin does, or with its pod.

use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::node::Node;
use support::pod::Pod;
use support::{cgroup, namespace};

/// How a child knows that it is one: `cgroup,namespace,TCP server,UDP server`.
const TALK: &str = "PARAPET_TEST_TALK";

pub(super) struct Talker {
    child: Child,
    line: UnixStream,
    said: u64,
}

impl Talker {
    /// In the first pod of a node.
    pub(super) fn start(node: &Node, pod: &Pod, tcp: SocketAddr, udp: SocketAddr) -> Self {
        let namespace = Path::new(namespace::NAMES).join(format!("{}-p0", node.name()));
        let order = format!("{},{},{tcp},{udp}", pod.cgroup.display(), namespace.display());
        let (line, far) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "survival::talker::talker_process", "--nocapture"])
            .env(TALK, order)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(far)))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, line, said: 0 }
    }

    /// Says something on both sockets; the server has received it when this comes back.
    pub(super) fn talk(&mut self) {
        self.line.write_all(b"t").unwrap();
        self.line.read_exact(&mut [0]).unwrap();
        self.said += 1;
    }

    /// Ends it; how often it said something comes back.
    pub(super) fn finish(mut self) -> u64 {
        self.line.shutdown(Shutdown::Write).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.said
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: the body of the child processes.
#[test]
fn talker_process() {
    let Ok(order) = std::env::var(TALK) else { return };
    let words: Vec<&str> = order.split(',').collect();
    let [folder, namespace, tcp, udp] = words[..] else { panic!("{order}") };
    cgroup::join(Path::new(folder), 0).unwrap();
    namespace::enter(Path::new(namespace)).unwrap();
    let mut connection = TcpStream::connect(tcp).unwrap();
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect(udp).unwrap();
    let mut line = UnixStream::from(rustix::io::dup(std::io::stdin()).unwrap());
    let mut word = [0];
    while line.read(&mut word).unwrap() == 1 {
        connection.write_all(b"on and on").unwrap();
        socket.send(b"and again").unwrap();
        // Sent back.
        assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 9);
        line.write_all(&word).unwrap();
    }
    connection.shutdown(Shutdown::Write).unwrap();
    connection.read_to_end(&mut Vec::new()).unwrap();
}
