//! Small draws from a small world, so that what is drawn twice often meets.
//!
//! In: the bytes that are left. Out: words, labels, addresses. One word in sixteen is none of the
//! world's: what nobody thought of is to be tried too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::{Result, Unstructured};

const KEYS: [&str; 4] = ["app", "tier", "example.com/team", "kubernetes.io/metadata.name"];
const VALUES: [&str; 5] = ["", "web", "db", "x", "y"];

/// One of these words, or anything.
pub(super) fn word(u: &mut Unstructured<'_>, words: &[&str]) -> Result<String> {
    if u.ratio(1, 16)? {
        let wild: &str = u.arbitrary()?;
        return Ok(wild.chars().take(80).collect());
    }
    if words.is_empty() { Ok(String::new()) } else { Ok((*u.choose(words)?).to_owned()) }
}

/// Nothing, or what is drawn by `draw`: three in four.
pub(super) fn maybe<'a, T>(
    u: &mut Unstructured<'a>,
    draw: impl FnOnce(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Option<T>> {
    if u.ratio(1, 4)? { Ok(None) } else { draw(u).map(Some) }
}

/// Up to so many.
pub(super) fn several<'a, T>(
    u: &mut Unstructured<'a>,
    max: usize,
    mut draw: impl FnMut(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=max)?;
    (0..count).map(|_| draw(u)).collect()
}

pub(super) fn label_key(u: &mut Unstructured<'_>) -> Result<String> {
    word(u, &KEYS)
}

pub(super) fn label_value(u: &mut Unstructured<'_>) -> Result<String> {
    word(u, &VALUES)
}

pub(super) fn labels(u: &mut Unstructured<'_>) -> Result<BTreeMap<String, String>> {
    let pairs = several(u, 3, |u| Ok((label_key(u)?, label_value(u)?)))?;
    Ok(pairs.into_iter().collect())
}

pub(super) fn flag(u: &mut Unstructured<'_>) -> Result<bool> {
    u.arbitrary()
}

/// Mostly one of a few neighbours, so that blocks hold some and not others.
pub(super) fn address(u: &mut Unstructured<'_>) -> Result<IpAddr> {
    Ok(match u.int_in_range(0..=9_u8)? {
        0..=4 => Ipv4Addr::new(10, 0, 0, u.int_in_range(0..=7)?).into(),
        5 => Ipv4Addr::new(192, 168, 0, u.int_in_range(1..=2)?).into(),
        6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u.int_in_range(0..=7)?).into(),
        7 => Ipv4Addr::new(10, 0, 0, u.int_in_range(0..=7)?).to_ipv6_mapped().into(),
        8 => Ipv4Addr::from(u.arbitrary::<u32>()?).into(),
        _ => Ipv6Addr::from(u.arbitrary::<u128>()?).into(),
    })
}

/// A CIDR: of a drawn address and any prefix length, or one that is no CIDR.
pub(super) fn cidr(u: &mut Unstructured<'_>) -> Result<String> {
    if u.ratio(1, 16)? {
        return word(u, &["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/08", "0.0.0.0/0", "::/0"]);
    }
    let address = address(u)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    Ok(format!("{address}/{}", u.int_in_range(0..=most)?))
}
