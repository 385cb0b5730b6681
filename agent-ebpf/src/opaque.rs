//! A value in, the same value out, of which the kernel's verifier knows nothing.
//!
//! The verifier walks what follows a branch once for each value that the branches before it have
//! left in a register. Without this the packet programs take it four hundred thousand instructions,
//! half of its limit, for three thousand that there are.

use aya_ebpf::programs::SkBuffContext;

/// A zero, of which the verifier knows nothing.
#[derive(Clone, Copy)]
pub struct Zero(u64);

/// By two reads of a field that does not change while a program runs: volatile, or the compiler
/// sees it, too.
#[inline(always)]
pub fn zero(ctx: &SkBuffContext) -> Zero {
    // SAFETY: the context is valid for the whole program.
    unsafe {
        let length = &raw const (*ctx.skb.skb).len;
        let zero = core::ptr::read_volatile(length).wrapping_sub(core::ptr::read_volatile(length));
        Zero(u64::from(zero))
    }
}

impl Zero {
    #[inline(always)]
    pub fn u8(self, value: u8) -> u8 {
        value.wrapping_add(self.0 as u8)
    }

    #[inline(always)]
    pub fn u16(self, value: u16) -> u16 {
        value.wrapping_add(self.0 as u16)
    }

    #[inline(always)]
    pub fn u32(self, value: u32) -> u32 {
        value.wrapping_add(self.0 as u32)
    }

    #[inline(always)]
    pub fn u64(self, value: u64) -> u64 {
        value.wrapping_add(self.0)
    }
}
