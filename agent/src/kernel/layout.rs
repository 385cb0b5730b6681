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
const KIND_POINTER: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
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

pub(super) const fn member(
    global: &'static str,
    structure: &'static str,
    member: &'static str,
) -> Member {
    Member { global, structure, member }
}

impl Member {
    /// As an error says it.
    pub(super) fn shown(&self) -> String {
        format!("{}.{}", self.structure, self.member)
    }
}

/// All of them.
pub(super) const MEMBERS: [Member; 21] = [
    member("OFFSET_CGROUP_KN", "cgroup", "kn"),
    member("OFFSET_CGROUP_ROOT", "cgroup", "root"),
    member("OFFSET_CGROUP_LEVEL", "cgroup", "level"),
    member("OFFSET_KERNFS_NODE_ID", "kernfs_node", "id"),
    member("OFFSET_CGROUP_ROOT_HIERARCHY_ID", "cgroup_root", "hierarchy_id"),
    member("OFFSET_SOCK_ERR", "sock", "sk_err"),
    member("OFFSET_SOCK_ERR_SOFT", "sock", "sk_err_soft"),
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
    member("OFFSET_SKC_COOKIE", "sock_common", "skc_cookie"),
    member("OFFSET_ICSK_ACCEPT_QUEUE", "inet_connection_sock", "icsk_accept_queue"),
    member("OFFSET_QUEUE_LENGTH", "request_sock_queue", "qlen"),
];

/// Structs without a name inside of each other; the kernel has three.
const NESTING_MAX: u32 = 8;

/// The types of a kernel.
pub(super) struct Types<'a> {
    reader: Reader<'a>,
    types: Vec<usize>,
}

impl<'a> Types<'a> {
    pub(super) fn new(btf: &'a [u8]) -> Result<Self, String> {
        let reader = Reader::new(btf).ok_or("the kernel's BTF cannot be read")?;
        let types = reader.types();
        Ok(Self { reader, types })
    }

    /// Offsets in bytes of those that this kernel has, in the order they are wanted in.
    pub(super) fn find(&self, wanted: &[Member]) -> Vec<Option<u32>> {
        let mut found = vec![None; wanted.len()];
        for at in &self.types {
            if self.reader.kind(*at) != Some(KIND_STRUCT) {
                continue;
            }
            let structure = self.reader.name(*at);
            for (wanted, slot) in wanted.iter().zip(&mut found) {
                if slot.is_none() && structure == wanted.structure {
                    *slot = self.reader.member(&self.types, *at, wanted.member, NESTING_MAX);
                }
            }
        }
        found
    }

    /// The number of a function, as its type has it.
    pub(super) fn function(&self, name: &str) -> Option<u32> {
        self.id(KIND_FUNC, name)
    }

    /// The number of a struct's type.
    pub(super) fn structure(&self, name: &str) -> Option<u32> {
        self.id(KIND_STRUCT, name)
    }

    fn id(&self, kind: u32, name: &str) -> Option<u32> {
        let is = |at: &usize| self.reader.kind(*at) == Some(kind) && self.reader.name(*at) == name;
        let index = self.types.iter().position(is)?;
        u32::try_from(index + 1).ok()
    }

    /// The types of the arguments of a tracepoint, without the first one, which is its own; empty
    /// if there is no such tracepoint. Each is the name of what it points to, or its own.
    pub(super) fn tracepoint(&self, name: &str) -> Vec<Argument<'a>> {
        let name = format!("btf_trace_{name}");
        let of = |at: &usize| self.reader.kind(*at) == Some(KIND_TYPEDEF);
        let Some(alias) =
            self.types.iter().copied().filter(of).find(|at| self.reader.name(*at) == name)
        else {
            return Vec::new();
        };
        self.prototype(alias).unwrap_or_default()
    }

    fn prototype(&self, alias: usize) -> Option<Vec<Argument<'a>>> {
        let pointer = self.target(alias)?;
        let prototype = self.target(pointer)?;
        if self.reader.kind(prototype)? != KIND_FUNC_PROTO {
            return None;
        }
        let count = word(self.reader.types, prototype + 4)? & 0xffff;
        let arguments = (1..count as usize).map(|index| {
            let id = word(self.reader.types, prototype + 12 + index * 8 + 4)?;
            Some(self.argument(id))
        });
        arguments.collect()
    }

    fn argument(&self, id: u32) -> Argument<'a> {
        let Some(at) = self.by_id(id) else { return Argument::Other("") };
        if self.reader.kind(at) != Some(KIND_POINTER) {
            return Argument::Other(self.reader.name(at));
        }
        Argument::Pointer(self.target(at).map_or("", |at| self.reader.name(at)))
    }

    fn target(&self, at: usize) -> Option<usize> {
        self.by_id(word(self.reader.types, at + 8)?)
    }

    fn by_id(&self, id: u32) -> Option<usize> {
        self.types.get((id as usize).checked_sub(1)?).copied()
    }
}

/// An argument's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Argument<'a> {
    /// To a struct of this name; of no name to `void`.
    Pointer(&'a str),
    /// Of this name.
    Other(&'a str),
}

/// Offsets in bytes, in the order of [`MEMBERS`].
pub(super) fn offsets(types: &Types<'_>) -> Result<[u32; MEMBERS.len()], String> {
    let mut offsets = [0; MEMBERS.len()];
    for ((wanted, found), offset) in MEMBERS.iter().zip(types.find(&MEMBERS)).zip(&mut offsets) {
        *offset = found.ok_or_else(|| format!("the kernel's BTF has no {}", wanted.shown()))?;
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
        let offsets = offsets(&Types::new(&btf).unwrap()).unwrap();
        let of =
            |name: &str| offsets[MEMBERS.iter().position(|wanted| wanted.member == name).unwrap()];
        // The only one that a stable layout gives away: nothing else can be at the start of a sock.
        assert!(of("sk_err") > 100, "it lies behind the common part of a socket: {offsets:?}");
        assert!(offsets.iter().all(|offset| *offset < 16_384), "{offsets:?}");
        // A pair of 16-bit ports inside of an unnamed struct in an unnamed union.
        assert_eq!(of("skc_num"), of("skc_dport") + 2, "{offsets:?}");
    }

    #[test]
    fn a_tracepoint_has_arguments_with_types() {
        let Ok(btf) = std::fs::read(BTF_PATH) else { return };
        let types = Types::new(&btf).unwrap();
        let expected = vec![Argument::Pointer("pt_regs"), Argument::Other("long int")];
        assert_eq!(types.tracepoint("sys_exit"), expected);
        assert_eq!(types.tracepoint("no_such_tracepoint"), Vec::new());
    }

    #[test]
    fn no_btf_is_an_error_whatever_it_is() {
        let offsets = |btf: &[u8]| Types::new(btf).and_then(|types| offsets(&types));
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
