//! Small draws from a small world, so that what is drawn twice often meets.
//!
//! In: the bytes that are left. Out: words, labels, addresses. Some draws are odd: then a word may
//! be none of the world's, for what nobody thought of is to be tried too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use arbitrary::unstructured::Int;
use arbitrary::{Arbitrary, Result, Unstructured};

const KEYS: [&str; 3] = ["app", "example.com/team", "kubernetes.io/metadata.name"];
const VALUES: [&str; 3] = ["", "web", "x"];

/// Where draws come from.
pub(super) struct Draw<'a> {
    bytes: Unstructured<'a>,
    /// Whether what is drawn now may be odd.
    oddly: bool,
}

impl<'a> Draw<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: Unstructured::new(bytes), oddly: false }
    }

    /// A whole object, one in four of which may be odd in any of its parts. Were each part odd now
    /// and then, hardly an object would be whole.
    pub(super) fn object<T>(&mut self, draw: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.oddly = self.ratio(1, 4)?;
        let object = draw(self);
        self.oddly = false;
        object
    }

    /// Whether this part is odd.
    pub(super) fn is_odd(&mut self) -> Result<bool> {
        Ok(self.oddly && self.ratio(1, 12)?)
    }

    pub(super) fn ratio(&mut self, part: u8, of: u8) -> Result<bool> {
        self.bytes.ratio(part, of)
    }

    pub(super) fn int_in_range<T: Int>(&mut self, range: RangeInclusive<T>) -> Result<T> {
        self.bytes.int_in_range(range)
    }

    pub(super) fn choose<'b, T>(&mut self, from: &'b [T]) -> Result<&'b T> {
        self.bytes.choose(from)
    }

    pub(super) fn arbitrary<T: Arbitrary<'a>>(&mut self) -> Result<T> {
        self.bytes.arbitrary()
    }
}

/// One of these words, or anything.
pub(super) fn word(u: &mut Draw<'_>, words: &[&str]) -> Result<String> {
    if u.is_odd()? {
        let any: &str = u.arbitrary()?;
        return Ok(any.chars().take(80).collect());
    }
    Ok((*u.choose(words)?).to_owned())
}

/// Nothing, or what is drawn by `draw`: two in three.
pub(super) fn maybe<'a, T>(
    u: &mut Draw<'a>,
    draw: impl FnOnce(&mut Draw<'a>) -> Result<T>,
) -> Result<Option<T>> {
    if u.ratio(1, 3)? { Ok(None) } else { draw(u).map(Some) }
}

/// Up to so many.
pub(super) fn several<'a, T>(
    u: &mut Draw<'a>,
    max: usize,
    mut draw: impl FnMut(&mut Draw<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(0..=max)?;
    (0..count).map(|_| draw(u)).collect()
}

/// The same, but none is odd.
pub(super) fn some<'a, T>(
    u: &mut Draw<'a>,
    max: usize,
    mut draw: impl FnMut(&mut Draw<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let min = usize::from(!u.is_odd()?);
    let count = u.int_in_range(min..=max)?;
    (0..count).map(|_| draw(u)).collect()
}

pub(super) fn label_key(u: &mut Draw<'_>) -> Result<String> {
    word(u, &KEYS)
}

pub(super) fn label_value(u: &mut Draw<'_>) -> Result<String> {
    word(u, &VALUES)
}

pub(super) fn labels(u: &mut Draw<'_>) -> Result<BTreeMap<String, String>> {
    let pairs = several(u, 2, |u| Ok((label_key(u)?, label_value(u)?)))?;
    Ok(pairs.into_iter().collect())
}

pub(super) fn flag(u: &mut Draw<'_>) -> Result<bool> {
    u.arbitrary()
}

/// Mostly one of a few neighbours, so that blocks hold some and not others.
pub(super) fn address(u: &mut Draw<'_>) -> Result<IpAddr> {
    Ok(match u.int_in_range(0..=9_u8)? {
        0..=4 => Ipv4Addr::new(10, 0, 0, u.int_in_range(0..=7)?).into(),
        5 => Ipv4Addr::new(192, 168, 0, u.int_in_range(1..=2)?).into(),
        6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u.int_in_range(0..=7)?).into(),
        7 => Ipv4Addr::new(10, 0, 0, u.int_in_range(0..=7)?).to_ipv6_mapped().into(),
        8 => Ipv4Addr::from(u.arbitrary::<u32>()?).into(),
        _ => Ipv6Addr::from(u.arbitrary::<u128>()?).into(),
    })
}

/// A CIDR of a drawn address, or one that is no CIDR.
pub(super) fn cidr(u: &mut Draw<'_>) -> Result<String> {
    Ok(nested_cidrs(u)?.0)
}

/// A CIDR and another inside of it, by the letter of the API: its own prefix is the longer one.
pub(super) fn nested_cidrs(u: &mut Draw<'_>) -> Result<(String, String)> {
    if u.is_odd()? {
        let odd = ["10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/08", "0.0.0.0/0", "::/0"];
        return Ok((word(u, &odd)?, word(u, &odd)?));
    }
    let address = match address(u)? {
        // A CIDR of mapped addresses is refused.
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(v6.into(), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    };
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let outer = u.int_in_range(0..=most - 1)?;
    let inner = u.int_in_range(outer + 1..=most)?;
    Ok((format!("{address}/{outer}"), format!("{address}/{inner}")))
}
