//! The product of rows of values with a packed weight of any kind.

use crate::cpu::gemm::{Rows, gemm};
use crate::cpu::int8;
use crate::cpu::packed::Packed;
use crate::cpu::tile::Epilogue;

/// `epilogue(x · right[k × n])` of a row-major `x` `[m, k]`.
pub(crate) fn product(x: &[f32], [n, k]: [usize; 2], right: &Packed, epilogue: &Epilogue) -> Vec<f32> {
    match right {
        Packed::Int8(right) => int8::product(x, [n, k], right, epilogue),
        Packed::Int4(right) => int8::product(x, [n, k], right, epilogue),
        _ => gemm(x.len() / k.max(1), n, k, &Rows { data: x, k }, right, epilogue),
    }
}
