use crate::Tensor;

/// `softmax(q kᵀ / sqrt(D)) v` per head; the scores are never materialised.
/// `q` is `[B, Lq, heads·D]`, `k` and `v` `[B, Lk, heads·D]`; the result is shaped like `q`.
/// `causal`: query i sees keys 0..=i.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Tensor {
    let _ = (q, k, v, heads, causal);
    todo!()
}
