use crate::Tensor;

/// `mean_b weight[b] · mean((x - target)²)`; `target` gets no gradient.
pub fn weighted_mse(x: &Tensor, target: &Tensor, weight: &[f32]) -> Tensor {
    let _ = (x, target, weight);
    todo!()
}

/// `mean_b weight[b] · mean(sqrt((x - target)² + c²) - c)`; `target` gets no gradient.
pub fn weighted_pseudo_huber(x: &Tensor, target: &Tensor, weight: &[f32], c: f32) -> Tensor {
    let _ = (x, target, weight, c);
    todo!()
}

/// `mean |x - target|`; `target` gets no gradient.
pub fn mean_absolute_error(x: &Tensor, target: &Tensor) -> Tensor {
    let _ = (x, target);
    todo!()
}
