//! Sockets that are older than the sensor in, their direction in the sockets' memory out, so that
//! a connection that was open before is not one that nobody knows the beginning of.
//!
//! The agent reads both iterators once, before the packet programs are attached: first all
//! listening ports are collected, then each connection is looked at. It sees the files of the
//! processes in its own pid namespace, whatever their network namespace (`iter/task_file`;
//! bpf_sock_from_file and socket storage in iterators are Linux 5.11, socket cookies there 5.12).

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_SK_STORAGE_GET_F_CREATE},
    helpers::{bpf_get_socket_cookie, bpf_sock_from_file},
};

use crate::{
    connection,
    maps::{LISTENERS, Listener, Offset},
    packet::{IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE},
    socket::{
        self, PHASE_NEW, PHASE_OLDER, PHASE_OLDER_CONNECTED, PHASE_OPEN_EGRESS, PHASE_OPEN_INGRESS,
        STATE_ESTABLISHED, STATE_LISTEN,
    },
    structs::{self, Pointer, TaskFile, read},
};

/// States of include/net/tcp_states.h in which the other side has closed and we have not.
const STATE_CLOSE_WAIT: u32 = 8;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A socket as it is looked at.
struct Older {
    sk: Pointer,
    namespace: u64,
    state: u32,
    local_port: u16,
    peer_port: u16,
    protocol: u16,
}

/// Collects the listening ports.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn older_listeners(ctx: *mut TaskFile) -> i32 {
    if let Some(socket) = socket(ctx)
        && socket.protocol == u16::from(IPPROTO_TCP)
        && socket.state == STATE_LISTEN
    {
        let listener = listener(&socket);
        // A listener that finds no room, as one that is closed by now, leaves its connections to be
        // taken for ones that were begun here.
        let _ = LISTENERS.insert(listener, 1, u64::from(BPF_ANY));
    }
    0
}

/// Tells each connection who began it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn older_connections(ctx: *mut TaskFile) -> i32 {
    let Some(socket) = socket(ctx) else { return 0 };
    let protocol = socket.protocol as u8;
    let phase = match (protocol, socket.state) {
        (IPPROTO_TCP, STATE_ESTABLISHED | STATE_CLOSE_WAIT) => {
            // SAFETY: the value is not used.
            if unsafe { LISTENERS.get(listener(&socket)).is_some() } {
                PHASE_OPEN_INGRESS
            } else {
                PHASE_OPEN_EGRESS
            }
        }
        (IPPROTO_UDP | IPPROTO_UDPLITE, _) if socket.peer_port != 0 => PHASE_OLDER_CONNECTED,
        (IPPROTO_UDP | IPPROTO_UDPLITE, _) if socket.local_port != 0 => PHASE_OLDER,
        _ => return 0,
    };
    if protocol == IPPROTO_TCP {
        // SAFETY: the kernel's own socket.
        let cookie = unsafe { bpf_get_socket_cookie(socket.sk.cast_mut()) };
        if connection::take(cookie, phase).is_some() {
            return 0;
        }
    }
    if let Some(state) = socket::storage(socket.sk.cast_mut(), BPF_SK_STORAGE_GET_F_CREATE) {
        // SAFETY: a live map value, null-checked.
        unsafe {
            if (*state).phase == PHASE_NEW {
                (*state).phase = phase;
            }
        }
    }
    0
}

#[inline(always)]
fn listener(socket: &Older) -> Listener {
    Listener { namespace: socket.namespace, port: u64::from(socket.local_port) }
}

/// The file's socket, if it is one of the internet's.
#[inline(always)]
fn socket(ctx: *mut TaskFile) -> Option<Older> {
    // SAFETY: the iterator's context; null at the end.
    let file = unsafe { (*ctx).file };
    if file.is_null() {
        return None;
    }
    // SAFETY: a file the kernel handed over.
    let socket: Pointer = unsafe { bpf_sock_from_file(file.cast_mut().cast()).cast_const().cast() };
    if socket.is_null() {
        return None;
    }
    // SAFETY: the verifier knows what the helper returns.
    let sk: Pointer = unsafe { structs::load(socket, Offset::SocketSk) };
    if sk.is_null() {
        return None;
    }
    let family: u16 = read(sk, Offset::SkcFamily)?;
    if family != AF_INET && family != AF_INET6 {
        return None;
    }
    let state: u8 = read(sk, Offset::SkcState)?;
    let peer_port: u16 = read(sk, Offset::SkcDport)?;
    Some(Older {
        sk,
        namespace: read(sk, Offset::SkcNet)?,
        state: u32::from(state),
        local_port: read(sk, Offset::SkcNum)?,
        peer_port,
        protocol: read(sk, Offset::SockProtocol)?,
    })
}
