//! CIDRs as old Kubernetes objects may hold them.
//!
//! In: the text of `ipBlock.cidr` or of an exception. Out: a network with its host bits masked, or
//! none. It never refuses what an API server once accepted: leading zeros are decimal, host bits
//! are dropped, an IPv4-mapped network is the IPv4 network it means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Bits before the IPv4 address in an IPv4-mapped IPv6 address.
const MAPPED_PREFIX_BITS: u8 = 96;
/// Go's decimal parser gives up at this value; so do we, digits are checked before.
const DECIMAL_DIGITS_MAX: usize = 8;

/// Reads "address/prefix" the way the API server's lenient parser does.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = u8::try_from(decimal(prefix)?).ok()?;
    if address.contains(':') {
        let address = parse_v6(address)?;
        let net = Ipv6Net::new(address, prefix).ok()?.trunc();
        Some(unmap_net(net))
    } else {
        Some(IpNet::V4(Ipv4Net::new(parse_v4(address)?, prefix).ok()?.trunc()))
    }
}

/// An IPv4-mapped IPv6 address becomes the IPv4 address it means.
pub(crate) fn unmap(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn unmap_net(net: Ipv6Net) -> IpNet {
    let mapped = net.addr().to_ipv4_mapped();
    let bits = net.prefix_len().checked_sub(MAPPED_PREFIX_BITS);
    match (mapped, bits) {
        (Some(address), Some(bits)) => {
            Ipv4Net::new(address, bits).map_or(IpNet::V6(net), IpNet::V4)
        }
        _ => IpNet::V6(net),
    }
}

fn decimal(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    match digits.len() {
        0 => Some(0),
        1..=DECIMAL_DIGITS_MAX => digits.parse().ok(),
        _ => None,
    }
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Rewrites each group without its leading zeros, which is all that std refuses and Go did not.
fn parse_v6(text: &str) -> Option<Ipv6Addr> {
    let mut plain = String::with_capacity(text.len());
    for (index, group) in text.split(':').enumerate() {
        if index > 0 {
            plain.push(':');
        }
        if group.contains('.') {
            plain.push_str(&parse_v4(group)?.to_string());
        } else if !group.is_empty() {
            let digits = group.trim_start_matches('0');
            plain.push_str(if digits.is_empty() { "0" } else { digits });
        }
    }
    plain.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_cidr;

    #[test]
    fn reads_what_old_api_servers_accepted() {
        let cases = [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.1.7/16", Some("10.1.0.0/16")),
            ("010.001.000.000/016", Some("10.1.0.0/16")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("fd00::00001/64", Some("fd00::/64")),
            ("2001:0db8::/032", Some("2001:db8::/32")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("::ffff:0a01:0203/128", Some("10.1.2.3/32")),
            ("::/0", Some("::/0")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0/8", None),
            ("10.0.0.0.0/8", None),
            ("10.0.0.256/8", None),
            ("10.0.0.0/+8", None),
            ("10.0.0.0/", None),
            ("0x0a.0.0.0/8", None),
            ("fe80::1%eth0/64", None),
            ("fd00:::/64", None),
            ("fd00::/129", None),
            ("", None),
            ("/", None),
        ];
        for (text, expected) in cases {
            let read = parse_cidr(text).map(|net| net.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
