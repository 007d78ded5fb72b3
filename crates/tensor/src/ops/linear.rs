use crate::autograd::{is_recording, record};
use crate::cpu::gemm::{self, Columns, Rows};
use crate::cpu::pack::{Packed, pack_right_rows, pack_right_transposed};
use crate::cpu::tile::Epilogue;
use crate::device::gpu;
use crate::{Activation, Param, Tensor, activation, add};
use rayon::prelude::*;
use std::sync::Arc;

/// Packed forms a weight can have.
const FORWARD: u8 = 0;
const BACKWARD: u8 = 1;

/// `act(x · weightᵀ + bias) + residual`. `x` is `[..., in]`, `weight` `[out, in]`, `bias` `[out]`,
/// `residual` `[..., out]`.
pub fn linear(x: &Tensor, weight: &Param, bias: Option<&Param>, act: Activation, residual: Option<&Tensor>) -> Tensor {
    let w = weight.on_tape();
    let b = bias.map(Param::tensor);
    let mut inputs = vec![x, &w];
    inputs.extend(&b);
    if !is_recording(&inputs) && !residual.is_some_and(|r| is_recording(&[r])) {
        return forward(x, weight, bias, b.as_ref(), act, residual);
    }
    let (x_saved, weight_saved) = (x.detach(), weight.clone());
    let wants = [x.node.is_some(), w.node.is_some()];
    let out = forward(x, weight, bias, b.as_ref(), Activation::None, None);
    let out = record(out, &inputs, move |g| {
        let dx = wants[0].then(|| grad_input(g, &weight_saved, x_saved.shape()));
        let dw = wants[1].then(|| grad_weight(g, &x_saved, &weight_saved.shape()));
        vec![dx, dw, Some(sum_rows(g))]
    });
    let out = activation(&out, act);
    residual.map_or(out.clone(), |r| add(&out, r))
}

/// `bias` is the value of `bias_param`.
fn forward(
    x: &Tensor,
    weight: &Param,
    bias_param: Option<&Param>,
    bias: Option<&Tensor>,
    act: Activation,
    residual: Option<&Tensor>,
) -> Tensor {
    let shape = weight.shape();
    let (n, k) = (shape[0], shape[1]);
    assert_eq!(x.dim(-1), k, "linear: x {:?} does not fit weight {shape:?}", x.shape());
    let m = x.numel() / k;
    let mut out_shape = x.shape().to_vec();
    out_shape[x.shape().len() - 1] = n;
    assert!(
        residual.is_none_or(|r| r.shape() == out_shape),
        "linear: residual shape"
    );
    if let Some(gpu) = gpu() {
        return gpu.linear(x, weight, bias_param, act, residual, &out_shape);
    }
    let packed = packed_weight(weight, n, k);
    let epilogue = Epilogue {
        bias: bias.map(Tensor::data),
        act,
        residual: residual.map(Tensor::data),
    };
    let out = gemm::gemm(m, n, k, &Rows { data: x.data(), k }, &packed, &epilogue);
    Tensor::from_vec(out, &out_shape)
}

/// What the forward pass multiplies with, made of a weight `[n, k]`.
pub(crate) fn packed_weight(weight: &Param, n: usize, k: usize) -> Arc<Packed> {
    weight.packed(FORWARD, |w, dtype| {
        Packed::new(pack_right_transposed(w.data(), n, k), k, dtype)
    })
}

fn grad_input(g: &Tensor, weight: &Param, x_shape: &[usize]) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.linear_grad_input(g, weight, x_shape);
    }
    let shape = weight.shape();
    let (n, k) = (shape[0], shape[1]);
    let m = g.numel() / n;
    let packed = weight.packed(BACKWARD, |w, _| Packed::F32(pack_right_rows(w.data(), k, n)));
    let left = Rows { data: g.data(), k: n };
    Tensor::from_vec(gemm::gemm(m, k, n, &left, &packed, &Epilogue::NONE), x_shape)
}

fn grad_weight(g: &Tensor, x: &Tensor, weight_shape: &[usize]) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.linear_grad_weight(g, x, weight_shape);
    }
    let (n, k) = (g.dim(-1), x.dim(-1));
    let m = g.numel() / n;
    let packed = Packed::F32(pack_right_rows(x.data(), k, m));
    let left = Columns { data: g.data(), m: n };
    Tensor::from_vec(gemm::gemm(n, k, m, &left, &packed, &Epilogue::NONE), &[n, k])
}

/// Sum over all axes but the last: a bias' gradient.
pub(crate) fn sum_rows(g: &Tensor) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.sum_rows(g);
    }
    let n = g.dim(-1);
    let rows_per_task = (g.numel() / n).div_ceil(rayon::current_num_threads()).max(64);
    let sums = g
        .data()
        .par_chunks(rows_per_task * n)
        .map(|chunk| {
            let mut sum = vec![0.0f32; n];
            for row in chunk.chunks_exact(n) {
                for (s, x) in sum.iter_mut().zip(row) {
                    *s += x;
                }
            }
            sum
        })
        .collect::<Vec<_>>();
    let mut total = vec![0.0; n];
    for sum in sums {
        for (t, s) in total.iter_mut().zip(sum) {
            *t += s;
        }
    }
    Tensor::from_vec(total, &[n])
}
