//! Linear layers: products of matrices.

use crate::cpu::gemm::{self, Rows};
use crate::cpu::pack::pack_right_rows;
use crate::cpu::packed::Packed;
use crate::cpu::product::product;
use crate::cpu::tile::Epilogue;
use crate::cpu::weight_gradient::weight_gradient;
use crate::ops::ConvolutionSizes;
use crate::{DType, Param};

/// The packed form of the backward pass.
const BACKWARD: u8 = 1;
/// Rows that the gradient of a weight walks over at a time.
const LINE: usize = 128;

/// `x [m, k] · weight [n, k]ᵀ`, then the epilogue: `[m, n]`.
pub(crate) fn forward(x: &[f32], weight: &Param, [n, k]: [usize; 2], epilogue: &Epilogue) -> Vec<f32> {
    let packed = weight.panels();
    product(x, [n, k], &packed, epilogue)
}

/// `g [m, n] · weight [n, k]`: `[m, k]`.
pub(crate) fn grad_input(g: &[f32], weight: &Param, [n, k]: [usize; 2]) -> Vec<f32> {
    let packed = weight.packed(BACKWARD, |w, dtype| {
        Packed::new(pack_right_rows(w.data(), k, n), n, dtype)
    });
    gemm::gemm(g.len() / n, k, n, &Rows { data: g, k: n }, &packed, &Epilogue::NONE)
}

/// `g [m, n]ᵀ · x [m, k]`: `[n, k]`, and the sums of the columns of `g`. `dtype` is what both are rounded to for the product.
pub(crate) fn grad_weight(g: &[f32], x: &[f32], [n, k]: [usize; 2], dtype: DType) -> (Vec<f32>, Vec<f32>) {
    // The rows in lines of one picture; the last one may be shorter.
    let rows = g.len() / n;
    let width = rows.min(LINE);
    let height = rows.div_ceil(width.max(1));
    let shape = ConvolutionSizes {
        batch: 1,
        height,
        width,
        inputs: k,
        outputs: n,
        kh: 1,
        kw: 1,
        out_height: height,
        out_width: width,
        stride: 1,
        padding: [0; 4],
    };
    weight_gradient(&shape, x, g, dtype)
}
