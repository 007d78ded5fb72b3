//! Helpers of the op tests: random tensors, comparisons, gradients by central differences.
#![allow(dead_code)] // each test binary uses its own part

use prima_tensor::{Philox, Tensor, mul, no_grad, weighted_mse};

/// Standard normal values, the same for the same seed and shape.
pub fn random_tensor(seed: u64, shape: &[usize]) -> Tensor {
    let noise = Philox {
        seed,
        image: 0,
        purpose: 0x7e57,
        step: 0,
    };
    Tensor::from_vec(noise.normal(shape.iter().product()), shape)
}

/// Asserts equal shapes and `|a - b| <= rel · max(1e-3, largest |b|)` everywhere.
#[track_caller]
pub fn assert_close(a: &Tensor, b: &Tensor, rel: f32) {
    assert_eq!(a.shape(), b.shape(), "shapes differ");
    let scale = b.data().iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    for (i, (x, y)) in a.data().iter().zip(b.data()).enumerate() {
        let close = (x - y).abs() <= rel * scale;
        assert!(
            close,
            "value {i} of {:?}: {x} and {y} differ by more than {rel} of {scale}",
            a.shape()
        );
    }
}

/// [`assert_close`] against an f64 reference.
#[track_caller]
pub fn assert_close_f64(a: &Tensor, reference: &[f64], rel: f32) {
    let b = Tensor::from_vec(reference.iter().map(|&v| v as f32).collect(), a.shape());
    assert_close(a, &b, rel);
}

/// Checks the gradient of `f` with respect to each input, under a random weighting of the output,
/// against central differences along random directions and along single values.
/// `tolerance` is relative to the size of the gradient.
#[track_caller]
pub fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor, tolerance: f32) {
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::requires_grad).collect();
    let out = f(&leaves);
    let weights = random_tensor(0xC0DE, out.shape());
    let gradients = total(&out, &weights).backward();
    let value = |inputs: &[Tensor]| -> f64 {
        let out = no_grad(|| f(inputs));
        out.data()
            .iter()
            .zip(weights.data())
            .map(|(o, w)| f64::from(*o) * f64::from(*w))
            .sum()
    };
    for (which, leaf) in leaves.iter().enumerate() {
        let gradient = gradients
            .get(leaf)
            .unwrap_or_else(|| panic!("input {which} has no gradient"));
        assert_eq!(gradient.shape(), leaf.shape(), "gradient of input {which}");
        let size = gradient
            .data()
            .iter()
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        for (label, direction) in directions(which, inputs[which].shape()) {
            let expected = dot(gradient.data(), &direction);
            let got = slope(inputs, which, &direction, &value);
            let bound = f64::from(tolerance) * (size + 1e-2);
            let off = (expected - got).abs();
            assert!(
                off <= bound,
                "input {which}, {label}: tape {expected}, differences {got}, |gradient| {size}"
            );
        }
    }
}

/// `Σ out · weights` as an op on the tape (`mean((out·w + 1)²) - mean((out·w - 1)²) = 4 mean(out·w)`).
pub fn total(out: &Tensor, weights: &Tensor) -> Tensor {
    let product = mul(out, weights);
    let product = product.reshape(&[1, product.numel()]);
    let count = product.numel() as f32;
    let ones = Tensor::full(1.0, product.shape());
    let plus = weighted_mse(&product, &prima_tensor::affine(&ones, -1.0, 0.0), &[0.25 * count]);
    let minus = weighted_mse(&product, &ones, &[0.25 * count]);
    prima_tensor::sub(&plus, &minus)
}

/// Unit directions: some random ones and some single values.
fn directions(which: usize, shape: &[usize]) -> Vec<(String, Vec<f64>)> {
    let len: usize = shape.iter().product();
    let mut all = Vec::new();
    for k in 0..4u64 {
        let noise = random_tensor(1000 + which as u64 * 16 + k, shape);
        let norm = noise
            .data()
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt()
            .max(1e-9);
        all.push((
            format!("direction {k}"),
            noise.data().iter().map(|v| f64::from(*v) / norm).collect(),
        ));
    }
    for k in 0..6usize.min(len) {
        let at = (k * 7919 + which) % len;
        let mut one = vec![0.0; len];
        one[at] = 1.0;
        all.push((format!("value {at}"), one));
    }
    all
}

fn dot(a: &[f32], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum()
}

/// Fourth-order central difference of `value` along `direction` of one input.
fn slope(inputs: &[Tensor], which: usize, direction: &[f64], value: &impl Fn(&[Tensor]) -> f64) -> f64 {
    let step = 1e-2;
    let at = |factor: f64| {
        let mut moved = inputs.to_vec();
        let base = &inputs[which];
        let data = base
            .data()
            .iter()
            .zip(direction)
            .map(|(v, d)| (f64::from(*v) + factor * step * d) as f32)
            .collect();
        moved[which] = Tensor::from_vec(data, base.shape());
        value(&moved)
    };
    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * step)
}
