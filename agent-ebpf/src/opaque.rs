//! A value in, the same value out, of which the kernel's verifier knows nothing.
//!
//! The verifier walks what follows a branch once for each value that the branches before it have
//! left in a register. Without this the packet programs take it four hundred thousand instructions,
//! half of its limit, for three thousand that there are.

use aya_ebpf::programs::SkBuffContext;

/// Zero, by two reads of a field that does not change while a program runs: volatile, or the
/// compiler sees it, too.
#[inline(always)]
fn zero(ctx: &SkBuffContext) -> u32 {
    // SAFETY: the context is valid for the whole program.
    unsafe {
        let length = &raw const (*ctx.skb.skb).len;
        core::ptr::read_volatile(length).wrapping_sub(core::ptr::read_volatile(length))
    }
}

#[inline(always)]
pub fn u8(ctx: &SkBuffContext, value: u8) -> u8 {
    value.wrapping_add(zero(ctx) as u8)
}

#[inline(always)]
pub fn u32(ctx: &SkBuffContext, value: u32) -> u32 {
    value.wrapping_add(zero(ctx))
}

#[inline(always)]
pub fn u64(ctx: &SkBuffContext, value: u64) -> u64 {
    value.wrapping_add(u64::from(zero(ctx)))
}
