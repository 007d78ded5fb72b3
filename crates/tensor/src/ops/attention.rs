use crate::autograd::{is_recording, record};
use crate::cpu::attention;
use crate::cpu::attention_forward::{Weight, forward};
use crate::cpu::gemm::SerialWord;
use crate::cpu::kernel::{Pair, kernel};
use crate::device::gpu;
use crate::{DType, Tensor};

/// Sizes of one attention: `q [batch, queries, heads·dim]`, `k` and `v` `[batch, keys, heads·dim]`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSizes {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub heads: usize,
    pub dim: usize,
    pub causal: bool,
}

impl AttentionSizes {
    pub(crate) fn new(q: &[usize], k: &[usize], v: &[usize], heads: usize, causal: bool) -> Self {
        let ([batch, queries, width], [key_batch, keys, key_width]) = (q, k) else {
            panic!("attention wants q [B,Lq,C] and k [B,Lk,C], got {q:?} and {k:?}");
        };
        assert!(
            k == v && batch == key_batch && width == key_width,
            "attention: q {q:?}, k {k:?}, v {v:?} do not fit"
        );
        assert_eq!(
            width % heads,
            0,
            "attention: {heads} heads do not divide {width} channels"
        );
        Self {
            batch: *batch,
            queries: *queries,
            keys: *keys,
            heads,
            dim: width / heads,
            causal,
        }
    }

    pub fn width(&self) -> usize {
        self.heads * self.dim
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// `softmax(q kᵀ / sqrt(D)) v` per head; the scores are never materialised.
/// `q` is `[B, Lq, heads·D]`, `k` and `v` `[B, Lk, heads·D]`; the result is shaped like `q`.
/// `causal`: query i sees keys 0..=i.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Tensor {
    attention_in(DType::F32, q, k, v, heads, causal)
}

/// [`attention`] of a network whose weights are kept in `dtype`. In bf16 its products may round their factors to bf16, as
/// the layers around it do: they do so where the processor multiplies bf16 faster than f32.
pub fn attention_in(dtype: DType, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Tensor {
    let s = AttentionSizes::new(q.shape(), k.shape(), v.shape(), heads, causal);
    let inputs = [q, k, v];
    if let Some(gpu) = gpu() {
        let (out, log_sums) = gpu.attention(s, q, k, v);
        return record_on_gpu(s, out, log_sums, inputs);
    }
    if dtype == DType::BF16 && kernel().multiplies_bf16 {
        on_cpu::<Pair>(s, inputs)
    } else {
        on_cpu::<f32>(s, inputs)
    }
}

fn on_cpu<W: SerialWord + Weight>(s: AttentionSizes, inputs: [&Tensor; 3]) -> Tensor {
    let [q, k, v] = inputs;
    let (out, log_sums) = forward::<W>(&s, q, k, v);
    if !is_recording(&inputs) {
        return out;
    }
    let ([q, k, v], out_saved) = (inputs.map(Tensor::detach), out.detach());
    record(out, &inputs, move |g| {
        let [dq, dk, dv] = attention::backward::<W>(&s, &q, &k, &v, &out_saved, &log_sums, g);
        vec![Some(dq), Some(dk), Some(dv)]
    })
}

fn record_on_gpu(s: AttentionSizes, out: Tensor, log_sums: Tensor, inputs: [&Tensor; 3]) -> Tensor {
    if !is_recording(&inputs) {
        return out;
    }
    let (saved, out_saved) = (inputs.map(Tensor::detach), out.detach());
    record(out, &inputs, move |g| {
        let gpu = gpu().unwrap_or_else(|| panic!("attention ran on a GPU, so must its backward pass"));
        let [q, k, v] = &saved;
        gpu.attention_backward(s, [q, k, v], &out_saved, &log_sums, g)
            .map(Some)
            .into()
    })
}
