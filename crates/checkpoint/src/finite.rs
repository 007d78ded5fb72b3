//! NaN and infinities, found in one pass over the bits.

use half::bf16;

/// The exponent of an f32: all of it set in NaN and in the infinities, and in nothing else.
const EXPONENT: u32 = 0x7f80_0000;

/// The first value that is NaN or infinite.
pub fn first_not_finite(values: &[f32]) -> Option<usize> {
    if all_finite(values) {
        return None;
    }
    values.iter().position(|value| !value.is_finite())
}

/// Without a branch in the loop, so that it becomes vector instructions.
fn all_finite(values: &[f32]) -> bool {
    let found = |found, value: &f32| found | (value.to_bits() & EXPONENT == EXPONENT);
    !values.iter().fold(false, found)
}

/// The same among values of bf16, which have the upper half of an f32's bits.
pub(crate) fn first_not_finite_bf16(values: &[bf16]) -> Option<usize> {
    let exponent = (EXPONENT >> 16) as u16;
    let not_finite = |value: &bf16| value.to_bits() & exponent == exponent;
    if !values.iter().fold(false, |found, value| found | not_finite(value)) {
        return None;
    }
    values.iter().position(not_finite)
}
