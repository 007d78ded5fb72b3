//! Linear layers: products of matrices.

use crate::cpu::gemm::{self, Columns, Rows};
use crate::cpu::pack::{Packed, pack_right_rows};
use crate::cpu::tile::Epilogue;
use crate::{DType, Param};

/// The packed form of the backward pass.
const BACKWARD: u8 = 1;

/// `x [m, k] · weight [n, k]ᵀ`, then the epilogue: `[m, n]`.
pub(crate) fn forward(x: &[f32], weight: &Param, [n, k]: [usize; 2], epilogue: &Epilogue) -> Vec<f32> {
    let packed = weight.panels();
    gemm::gemm(x.len() / k, n, k, &Rows { data: x, k }, &packed, epilogue)
}

/// `g [m, n] · weight [n, k]`: `[m, k]`.
pub(crate) fn grad_input(g: &[f32], weight: &Param, [n, k]: [usize; 2]) -> Vec<f32> {
    let packed = weight.packed(BACKWARD, |w, dtype| {
        Packed::new(pack_right_rows(w.data(), k, n), n, dtype)
    });
    gemm::gemm(g.len() / n, k, n, &Rows { data: g, k: n }, &packed, &Epilogue::NONE)
}

/// `g [m, n]ᵀ · x [m, k]`: `[n, k]`. `dtype` is what both are rounded to.
pub(crate) fn grad_weight(g: &[f32], x: &[f32], [n, k]: [usize; 2], dtype: DType) -> Vec<f32> {
    let m = g.len() / n;
    let packed = Packed::new(pack_right_rows(x, k, m), m, dtype);
    gemm::gemm(n, k, m, &Columns { data: g, m: n }, &packed, &Epilogue::NONE)
}
