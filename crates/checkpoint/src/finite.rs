//! NaN and infinities, found in one pass over the bits.

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
