//! This network namespace's own addresses, bridges and tunnels included.
//!
//! In: `/proc/self/net/{fib_trie,if_inet6}`. Out: addresses without loopback, and the broadcast
//! addresses of the networks they are in, both sorted. The agent must be in the host's network
//! namespace for them to be the node's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV4_PATH: &str = "/proc/self/net/fib_trie";
/// Missing where the kernel has no IPv6.
const IPV6_PATH: &str = "/proc/self/net/if_inet6";

const LOCAL: &str = "/32 host LOCAL";
const BROADCAST: &str = "/32 link BROADCAST";

/// What a network namespace has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Every address that is its own.
    pub own: Vec<IpAddr>,
    /// Those that mean everybody in one of its networks.
    pub broadcasts: Vec<IpAddr>,
}

/// Every address of this one; empty where procfs cannot be read.
#[must_use]
pub fn read() -> Addresses {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (fib_trie, if_inet6) = (read(IPV4_PATH), read(IPV6_PATH));
    let of = |kind| ipv4(&fib_trie, kind).map(IpAddr::V4);
    let own = of(LOCAL).chain(ipv6(&if_inet6).map(IpAddr::V6));
    Addresses { own: sorted(own), broadcasts: sorted(of(BROADCAST)) }
}

fn sorted(addrs: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addrs: Vec<_> = addrs.filter(|addr| !addr.is_loopback()).collect();
    addrs.sort();
    addrs.dedup();
    addrs
}

/// Leaves are a line `|-- ADDRESS`, followed by a line for each route of this kind.
fn ipv4(fib_trie: &str, kind: &'static str) -> impl Iterator<Item = Ipv4Addr> {
    let mut leaf: Option<Ipv4Addr> = None;
    fib_trie.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(addr) = line.strip_prefix("|-- ") {
            leaf = addr.parse().ok();
            return None;
        }
        if line == kind { leaf } else { None }
    })
}

/// The first word of each line is the address in 32 hexadecimal digits.
fn ipv6(if_inet6: &str) -> impl Iterator<Item = Ipv6Addr> {
    if_inet6.lines().filter_map(|line| {
        let word = line.split_whitespace().next().filter(|word| word.len() == 32)?;
        u128::from_str_radix(word, 16).ok().map(Ipv6Addr::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_hosts_are_ours_and_networks_and_broadcasts_are_not() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                    +-- 10.0.0.0/24 2 0 2\n        |-- 10.0.0.0\n           /24 link UNICAST\n        \
                    |-- 10.0.0.7\n           /32 host LOCAL\n        |-- 10.0.0.255\n           \
                    /32 link BROADCAST\n";
        let of = |kind| ipv4(trie, kind).collect::<Vec<_>>();
        assert_eq!(of(LOCAL), vec![Ipv4Addr::new(10, 0, 0, 7)]);
        assert_eq!(of(BROADCAST), vec![Ipv4Addr::new(10, 0, 0, 255)]);
    }

    #[test]
    fn hexadecimal_addresses_are_read_and_odd_lines_are_not() {
        let text = "fd000000000000000000000000000001 02 40 00 80 eth0\nodd line\n\n";
        let expected: Ipv6Addr = "fd00::1".parse().unwrap();
        assert_eq!(ipv6(text).collect::<Vec<_>>(), vec![expected]);
    }

    #[test]
    fn loopback_is_not_an_address_of_the_node() {
        let Addresses { own, broadcasts } = read();
        assert!(own.iter().chain(&broadcasts).all(|addr| !addr.is_loopback()));
    }
}
