use crate::autograd::{is_recording, record};
use crate::cpu::attention::{self, Shape};
use crate::cpu::attention_forward::forward;
use crate::cpu::kernel::{Pair, kernel};
use crate::cuda::LogSums;
use crate::device::gpu;
use crate::{DType, Tensor};

/// `softmax(q kᵀ / sqrt(D)) v` per head; the scores are never materialised.
/// `q` is `[B, Lq, heads·D]`, `k` and `v` `[B, Lk, heads·D]`; the result is shaped like `q`.
/// `causal`: query i sees keys 0..=i.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Tensor {
    attention_in(DType::F32, q, k, v, heads, causal)
}

/// [`attention`] of a network whose weights are kept in `dtype`. In bf16 its products may round their factors to bf16, as
/// the layers around it do: they do so where the processor multiplies bf16 faster than f32 and no tape is recorded.
pub fn attention_in(dtype: DType, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Tensor {
    let shape = Shape::new(q.shape(), k.shape(), v.shape(), heads, causal);
    let inputs = [q, k, v];
    if let Some(gpu) = gpu() {
        let (out, log_sums) = gpu.attention(shape, q, k, v);
        return record_on_gpu(shape, out, log_sums, inputs);
    }
    if !is_recording(&inputs) {
        return if dtype == DType::BF16 && kernel().multiplies_bf16 {
            forward::<Pair>(&shape, q, k, v).0
        } else {
            forward::<f32>(&shape, q, k, v).0
        };
    }
    let (out, log_sums) = forward::<f32>(&shape, q, k, v);
    let (q_saved, k_saved, v_saved, out_saved) = (q.detach(), k.detach(), v.detach(), out.detach());
    record(out, &inputs, move |g| {
        let [dq, dk, dv] = attention::backward(&shape, &q_saved, &k_saved, &v_saved, &out_saved, &log_sums, g);
        vec![Some(dq), Some(dk), Some(dv)]
    })
}

fn record_on_gpu(shape: Shape, out: Tensor, log_sums: LogSums, inputs: [&Tensor; 3]) -> Tensor {
    if !is_recording(&inputs) {
        return out;
    }
    let (saved, out_saved) = (inputs.map(Tensor::detach), out.detach());
    record(out, &inputs, move |g| {
        let gpu = gpu().unwrap_or_else(|| panic!("attention ran on a GPU, so must its backward pass"));
        let [q, k, v] = &saved;
        gpu.attention_backward(shape, [q, k, v], &out_saved, &log_sums, g)
            .map(Some)
            .into()
    })
}
