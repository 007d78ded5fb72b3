//! Attention's backward pass; forward: `attention_forward.rs`.

use crate::Tensor;
use crate::cpu::gemm::{Scratch, SerialWord, gemm_serial};
use crate::cpu::math::exp_slice;
use crate::cpu::pack::View;
use crate::ops::AttentionSizes;
use rayon::prelude::*;

const QUERY_BLOCK: usize = 96;
const KEY_BLOCK: usize = 256;

impl AttentionSizes {
    /// One head of one sample of a `[B, L, heads·D]` array, starting at row `row`.
    fn view<'a>(&self, data: &'a [f32], length: usize, b: usize, h: usize, row: usize) -> View<'a> {
        let start = (b * length + row) * self.width() + h * self.dim;
        View {
            data: &data[start..],
            row_stride: self.width(),
            col_stride: 1,
        }
    }

    /// One row of that: `D` values.
    pub fn row<'a>(&self, data: &'a [f32], length: usize, b: usize, h: usize, row: usize) -> &'a [f32] {
        &self.view(data, length, b, h, row).data[..self.dim]
    }

    /// How many of the keys `first..first + len` query `row` sees.
    pub fn visible(&self, row: usize, first: usize, len: usize) -> usize {
        if self.causal {
            (row + 1).saturating_sub(first).min(len)
        } else {
            len
        }
    }
}

fn transposed(view: View) -> View {
    View {
        data: view.data,
        row_stride: view.col_stride,
        col_stride: view.row_stride,
    }
}

#[derive(Default)]
struct Workspace {
    scores: Vec<f32>,
    product: Vec<f32>,
    grads: Vec<f32>,
    scratch: Scratch,
}

/// Gradients of q, k and v, products in words of type `W`; the probabilities are recomputed block by block from `log_sums`.
pub(crate) fn backward<W: SerialWord>(
    s: &AttentionSizes,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &Tensor,
    log_sums: &[f32],
    g: &Tensor,
) -> [Tensor; 3] {
    let heads: Vec<[Vec<f32>; 3]> = (0..s.batch * s.heads)
        .into_par_iter()
        .map_init(Workspace::default, |work, bh| {
            backward_head::<W>(s, q, k, v, out, log_sums, g, bh / s.heads, bh % s.heads, work)
        })
        .collect();
    let lengths = [s.queries, s.keys, s.keys];
    std::array::from_fn(|which| {
        let length = lengths[which];
        let mut grad = vec![0.0; s.batch * length * s.width()];
        for (bh, parts) in heads.iter().enumerate() {
            let (b, h) = (bh / s.heads, bh % s.heads);
            for (l, row) in parts[which].chunks_exact(s.dim).enumerate() {
                grad[(b * length + l) * s.width() + h * s.dim..][..s.dim].copy_from_slice(row);
            }
        }
        Tensor::from_vec(grad, &[s.batch, length, s.width()])
    })
}

fn backward_head<W: SerialWord>(
    s: &AttentionSizes,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    out: &Tensor,
    log_sums: &[f32],
    g: &Tensor,
    b: usize,
    h: usize,
    work: &mut Workspace,
) -> [Vec<f32>; 3] {
    let mut dq = vec![0.0f32; s.queries * s.dim];
    let mut dk = vec![0.0f32; s.keys * s.dim];
    let mut dv = vec![0.0f32; s.keys * s.dim];
    for first in (0..s.queries).step_by(QUERY_BLOCK) {
        let rows = QUERY_BLOCK.min(s.queries - first);
        let query = s.view(q.data(), s.queries, b, h, first);
        let grad = s.view(g.data(), s.queries, b, h, first);
        let result = s.view(out.data(), s.queries, b, h, first);
        // delta = sum(dO * O), the softmax backward's row constant.
        let delta: Vec<f32> = (0..rows)
            .map(|r| {
                let at = r * s.width();
                grad.data[at..at + s.dim]
                    .iter()
                    .zip(&result.data[at..at + s.dim])
                    .map(|(a, b)| a * b)
                    .sum()
            })
            .collect();
        let end = s.visible(first + rows - 1, 0, s.keys);
        for key0 in (0..end).step_by(KEY_BLOCK) {
            let len = KEY_BLOCK.min(end - key0);
            let key = s.view(k.data(), s.keys, b, h, key0);
            let value = s.view(v.data(), s.keys, b, h, key0);
            work.scores.resize(rows * len, 0.0);
            work.product.resize(rows * len, 0.0);
            work.grads.resize(rows * len, 0.0);
            gemm_serial::<W>(
                rows,
                len,
                s.dim,
                query,
                transposed(key),
                &mut work.scores,
                len,
                false,
                &mut work.scratch,
            );
            gemm_serial::<W>(
                rows,
                len,
                s.dim,
                grad,
                transposed(value),
                &mut work.product,
                len,
                false,
                &mut work.scratch,
            );
            for r in 0..rows {
                let log_sum = log_sums[(b * s.queries + first + r) * s.heads + h];
                let visible = s.visible(first + r, key0, len);
                let row = &mut work.scores[r * len..][..len];
                row[visible..].fill(0.0);
                for x in &mut row[..visible] {
                    *x = *x * s.scale() - log_sum;
                }
                exp_slice(&mut row[..visible]);
                let products = &work.product[r * len..][..len];
                for ((ds, p), dp) in work.grads[r * len..][..len].iter_mut().zip(row.iter()).zip(products) {
                    *ds = p * (dp - delta[r]) * s.scale();
                }
            }
            let scores = View {
                data: &work.scores,
                row_stride: len,
                col_stride: 1,
            };
            let grads = View {
                data: &work.grads,
                row_stride: len,
                col_stride: 1,
            };
            let key_rows = key0 * s.dim..;
            gemm_serial::<W>(
                len,
                s.dim,
                rows,
                transposed(scores),
                grad,
                &mut dv[key_rows.clone()],
                s.dim,
                true,
                &mut work.scratch,
            );
            gemm_serial::<W>(
                len,
                s.dim,
                rows,
                transposed(grads),
                query,
                &mut dk[key_rows],
                s.dim,
                true,
                &mut work.scratch,
            );
            gemm_serial::<W>(
                rows,
                s.dim,
                len,
                grads,
                key,
                &mut dq[first * s.dim..],
                s.dim,
                true,
                &mut work.scratch,
            );
        }
    }
    [dq, dk, dv]
}
