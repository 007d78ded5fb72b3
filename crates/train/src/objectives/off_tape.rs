//! Losses that are computed off the tape, with gradients of their own.

use super::discriminator::mean;
use prima_tensor::{Tensor, affine, mul, sub};

/// A loss of this `value`, whose gradient towards `x` is `gradient`, of `x`'s shape.
pub(super) fn with_gradient(x: &Tensor, value: f32, gradient: Vec<f32>) -> Tensor {
    let gradient = Tensor::from_vec(gradient, x.shape());
    // Nothing, but for what it leads back to.
    let nothing = mul(&sub(x, &x.detach()), &gradient);
    affine(&mean(&nothing), x.numel() as f32, value)
}

/// The mean over samples of `weights[b] (sqrt(|x - target|^2 + c^2) - c)`, `|.|` the root of the mean square of a sample: as robust
/// as an absolute error, for samples as a whole. `target` gets no gradient.
pub(super) fn weighted_norm(x: &Tensor, target: &Tensor, weights: &[f32], c: f32) -> Tensor {
    let (n, each) = (weights.len(), x.numel() / weights.len());
    let (mut value, mut gradient) = (0.0f64, Vec::with_capacity(x.numel()));
    let samples = x.data().chunks_exact(each).zip(target.data().chunks_exact(each));
    for ((x, target), weight) in samples.zip(weights) {
        let squares: f64 = x.iter().zip(target).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let (mean, c) = (squares / each as f64, f64::from(c));
        let (root, weight) = ((mean + c * c).sqrt(), f64::from(*weight) / n as f64);
        // Without the cancellation next to nothing.
        value += weight * mean / (root + c).max(f64::MIN_POSITIVE);
        let slope = weight / (each as f64 * root.max(1e-12));
        gradient.extend(x.iter().zip(target).map(|(a, b)| (slope * f64::from(a - b)) as f32));
    }
    with_gradient(x, value as f32, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_tensor::Param;

    #[test]
    fn a_norms_gradient_is_its_difference_quotient() {
        let values = vec![0.5, -1.0, 2.0, 0.1, 0.7, -0.3];
        let param = Param::new(Tensor::from_vec(values.clone(), &[2, 3]));
        param.set_trainable(true);
        let target = Tensor::from_vec(vec![0.0, 1.0, 1.5, 0.2, 0.2, 0.2], &[2, 3]);
        let loss = |x: &Tensor| weighted_norm(x, &target, &[2.0, 0.5], 0.1);
        let gradients = loss(&param.tensor()).backward();
        let found = gradients.param(&param).unwrap().data().to_vec();
        for (i, found) in found.iter().enumerate() {
            let moved = |h: f32| {
                let mut values = values.clone();
                values[i] += h;
                loss(&Tensor::from_vec(values, &[2, 3])).item()
            };
            let quotient = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((quotient - found).abs() < 1e-3, "{i}: {found}, expected {quotient}");
        }
    }
}
