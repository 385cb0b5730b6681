//! The instructions of the object that call `bpf_rdonly_cast` (Linux 6.2): its number in the
//! running kernel comes in, an object that calls it by that number goes out.
//!
//! A kernel's functions have no numbers of their own, and aya hands none over. A kernel without the
//! function gets a move in its place, which its programs do not reach.

/// What stands in the object: `BPF_JMP | BPF_CALL`, source `BPF_PSEUDO_KFUNC_CALL`, and a number
/// that nothing else has (agent-ebpf/src/cast.rs).
const CALL: [u8; 8] = [0x85, 0x20, 0, 0, 0x50, 0x52, 0x50, 0x43];
/// `BPF_ALU64 | BPF_MOV | BPF_X`: register 0 becomes what register 1 is.
const MOVE: [u8; 8] = [0xbf, 0x10, 0, 0, 0, 0, 0, 0];

/// The object with the function's number, if there is one.
pub(in super::super) fn patched(object: &[u8], function: Option<u32>) -> Vec<u8> {
    let mut instruction = CALL;
    match function {
        Some(number) => instruction[4..].copy_from_slice(&number.to_le_bytes()),
        None => instruction = MOVE,
    }
    let mut patched = object.to_vec();
    // Instructions lie at multiples of their size.
    for place in patched.chunks_exact_mut(CALL.len()) {
        if place == CALL {
            place.copy_from_slice(&instruction);
        }
    }
    patched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_gets_its_number_or_makes_room() {
        let object = [[1; 8], CALL, [2; 8], CALL].concat();
        let called = [0x85, 0x20, 0, 0, 0xcc, 0xff, 0, 0];
        assert_eq!(patched(&object, Some(0xffcc)), [[1; 8], called, [2; 8], called].concat());
        assert_eq!(patched(&object, None), [[1; 8], MOVE, [2; 8], MOVE].concat());
        assert!(super::super::super::load::OBJECT.chunks_exact(8).any(|place| place == CALL));
    }
}
