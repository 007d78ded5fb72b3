use crate::Tensor;
use crate::autograd::{is_recording, record};
use crate::cpu::attention::{self, Shape};

/// `softmax(q kᵀ / sqrt(D)) v` per head; the scores are never materialised.
/// `q` is `[B, Lq, heads·D]`, `k` and `v` `[B, Lk, heads·D]`; the result is shaped like `q`.
/// `causal`: query i sees keys 0..=i.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Tensor {
    let shape = Shape::new(q.shape(), k.shape(), v.shape(), heads, causal);
    let inputs = [q, k, v];
    if !is_recording(&inputs) {
        return attention::forward(&shape, q, k, v).0;
    }
    let (out, log_sums) = attention::forward(&shape, q, k, v);
    let (q_saved, k_saved, v_saved, out_saved) = (q.detach(), k.detach(), v.detach(), out.detach());
    record(out, &inputs, move |g| {
        let [dq, dk, dv] = attention::backward(&shape, &q_saved, &k_saved, &v_saved, &out_saved, &log_sums, g);
        vec![Some(dq), Some(dk), Some(dv)]
    })
}
