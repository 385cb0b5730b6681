//! A load balancer in the socket layer, as a CNI that replaces kube-proxy has it: whom a socket
//! asks for comes in, a backend takes its place. For tests; the agent never loads it.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// The Service and its backend, set by the test: addresses and ports in network order.
#[unsafe(no_mangle)]
static REWRITE_FROM_ADDR: u32 = 0;
#[unsafe(no_mangle)]
static REWRITE_FROM_PORT: u32 = 0;
#[unsafe(no_mangle)]
static REWRITE_TO_ADDR: u32 = 0;
#[unsafe(no_mangle)]
static REWRITE_TO_PORT: u32 = 0;

const ALLOW: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub fn test_rewrite_connect(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the whole program; the statics are this object's own,
    // volatile because the loader changes them after compilation.
    unsafe {
        let address = ctx.sock_addr;
        if (*address).user_ip4 == core::ptr::read_volatile(&raw const REWRITE_FROM_ADDR)
            && (*address).user_port == core::ptr::read_volatile(&raw const REWRITE_FROM_PORT)
        {
            (*address).user_ip4 = core::ptr::read_volatile(&raw const REWRITE_TO_ADDR);
            (*address).user_port = core::ptr::read_volatile(&raw const REWRITE_TO_PORT);
        }
    }
    ALLOW
}
