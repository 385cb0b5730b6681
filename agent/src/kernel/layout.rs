//! The running kernel's BTF in, offsets of struct members out. Rust cannot emit the relocations
//! that libbpf programs use, so the agent looks the offsets up and hands them over as constants.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>. Members of structs are looked up, and
//! those of unnamed structs and unions inside of them.
//! Bytes that make no sense are an error, never a panic.

/// Where the kernel shows its own types.
pub(super) const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// A struct member whose offset a program needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// The global of the BPF object that takes it.
    pub(super) global: &'static str,
    structure: &'static str,
    member: &'static str,
}

const fn member(global: &'static str, structure: &'static str, member: &'static str) -> Member {
    Member { global, structure, member }
}

/// All of them.
pub(super) const MEMBERS: [Member; 17] = [
    member("OFFSET_CGROUP_KN", "cgroup", "kn"),
    member("OFFSET_CGROUP_ROOT", "cgroup", "root"),
    member("OFFSET_CGROUP_LEVEL", "cgroup", "level"),
    member("OFFSET_KERNFS_NODE_ID", "kernfs_node", "id"),
    member("OFFSET_CGROUP_ROOT_HIERARCHY_ID", "cgroup_root", "hierarchy_id"),
    member("OFFSET_SOCK_ERR", "sock", "sk_err"),
    member("OFFSET_SOCK_ERROR_QUEUE", "sock", "sk_error_queue"),
    member("OFFSET_SK_BUFF_HEAD_PREV", "sk_buff_head", "prev"),
    member("OFFSET_SK_BUFF_CB", "sk_buff", "cb"),
    member("OFFSET_EXTENDED_ERROR", "sock_exterr_skb", "ee"),
    member("OFFSET_SOCK_PROTOCOL", "sock", "sk_protocol"),
    member("OFFSET_SOCKET_SK", "socket", "sk"),
    // At the start of every socket, so its offsets are those in `sock`.
    member("OFFSET_SKC_FAMILY", "sock_common", "skc_family"),
    member("OFFSET_SKC_STATE", "sock_common", "skc_state"),
    member("OFFSET_SKC_NUM", "sock_common", "skc_num"),
    member("OFFSET_SKC_DPORT", "sock_common", "skc_dport"),
    member("OFFSET_SKC_NET", "sock_common", "skc_net"),
];

/// Structs without a name inside of each other; the kernel has three.
const NESTING_MAX: u32 = 8;

/// Offsets in bytes, in the order of [`MEMBERS`].
pub(super) fn offsets(btf: &[u8]) -> Result<[u32; MEMBERS.len()], String> {
    let reader = Reader::new(btf).ok_or("the kernel's BTF cannot be read")?;
    let types = reader.types();
    let mut found = [None; MEMBERS.len()];
    for at in &types {
        if reader.kind(*at) != Some(KIND_STRUCT) {
            continue;
        }
        let structure = reader.name(*at);
        for (wanted, slot) in MEMBERS.iter().zip(&mut found) {
            if slot.is_none() && structure == wanted.structure {
                *slot = reader.member(&types, *at, wanted.member, NESTING_MAX);
            }
        }
    }
    let mut offsets = [0; MEMBERS.len()];
    for ((wanted, found), offset) in MEMBERS.iter().zip(found).zip(&mut offsets) {
        *offset = found.ok_or_else(|| {
            format!("the kernel's BTF has no {}.{}", wanted.structure, wanted.member)
        })?;
    }
    Ok(offsets)
}

struct Reader<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|four| u32::from_ne_bytes(*four))
}

impl<'a> Reader<'a> {
    fn new(btf: &'a [u8]) -> Option<Self> {
        let magic = u16::from_ne_bytes(*btf.first_chunk::<2>()?);
        if magic != MAGIC {
            return None;
        }
        let section = |offset_at: usize| {
            let header_bytes = word(btf, 4)? as usize;
            let start = header_bytes.checked_add(word(btf, offset_at)? as usize)?;
            btf.get(start..start.checked_add(word(btf, offset_at + 4)? as usize)?)
        };
        Some(Self { types: section(8)?, strings: section(16)? })
    }

    fn string(&self, offset: u32) -> &'a str {
        let bytes = self.strings.get(offset as usize..).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        std::str::from_utf8(bytes.get(..end).unwrap_or_default()).unwrap_or_default()
    }

    /// Where each type begins, in the order of their ids, the first of which is 1; ends at the
    /// first one that makes no sense.
    fn types(&self) -> Vec<usize> {
        let mut types = Vec::new();
        let mut at = 0;
        while let Some(info) = word(self.types, at + 4) {
            types.push(at);
            at += 12 + trailing_bytes(info >> 24 & 0x1f, (info & 0xffff) as usize);
        }
        types
    }

    fn kind(&self, at: usize) -> Option<u32> {
        word(self.types, at + 4).map(|info| info >> 24 & 0x1f)
    }

    fn name(&self, at: usize) -> &'a str {
        word(self.types, at).map_or("", |name| self.string(name))
    }

    /// Offset in bytes of a member, also inside of members that have no name.
    fn member(&self, types: &[usize], at: usize, name: &str, depth: u32) -> Option<u32> {
        let info = word(self.types, at + 4)?;
        // With the kind flag a member's offset shares its word with a bit field's size.
        let bit_field_sizes = info >> 31 == 1;
        (0..(info & 0xffff) as usize).find_map(|index| {
            let member = at + 12 + index * 12;
            let bits = word(self.types, member + 8)?;
            let bits = if bit_field_sizes { bits & 0x00ff_ffff } else { bits };
            match self.string(word(self.types, member)?) {
                found if found == name => Some(bits / 8),
                "" if depth > 0 => {
                    let id = word(self.types, member + 4)?;
                    let inner = *types.get((id as usize).checked_sub(1)?)?;
                    if !matches!(self.kind(inner)?, KIND_STRUCT | KIND_UNION) {
                        return None;
                    }
                    let offset = self.member(types, inner, name, depth - 1)?;
                    bits.checked_div(8)?.checked_add(offset)
                }
                _ => None,
            }
        })
    }
}

/// Bytes after the 12 that all kinds have.
fn trailing_bytes(kind: u32, count: usize) -> usize {
    match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count * 12,
        KIND_ENUM | KIND_FUNC_PROTO => count * 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_its_offsets() {
        let Ok(btf) = std::fs::read(BTF_PATH) else {
            assert!(std::env::var_os("CI").is_none(), "CI has a kernel with BTF");
            return;
        };
        let offsets = offsets(&btf).unwrap();
        let of =
            |name: &str| offsets[MEMBERS.iter().position(|wanted| wanted.member == name).unwrap()];
        // The only one that a stable layout gives away: nothing else can be at the start of a sock.
        assert!(of("sk_err") > 100, "it lies behind the common part of a socket: {offsets:?}");
        assert!(offsets.iter().all(|offset| *offset < 16_384), "{offsets:?}");
        // A pair of 16-bit ports inside of an unnamed struct in an unnamed union.
        assert_eq!(of("skc_num"), of("skc_dport") + 2, "{offsets:?}");
    }

    #[test]
    fn no_btf_is_an_error_whatever_it_is() {
        assert!(offsets(&[]).is_err());
        assert!(offsets(&[0xff; 64]).is_err());
        let mut header = vec![0; 24];
        header[..2].copy_from_slice(&MAGIC.to_ne_bytes());
        header[4..8].copy_from_slice(&24_u32.to_ne_bytes());
        header[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(offsets(&header).is_err(), "sections outside of the bytes");
        header[12..16].copy_from_slice(&0_u32.to_ne_bytes());
        assert_eq!(offsets(&header), Err("the kernel's BTF has no cgroup.kn".to_owned()));
    }
}
