//! GroupNorm and LayerNorm against f64 references, their gradients against differences.

mod common;

use common::{assert_close, assert_close_f64, check_gradients, random_tensor};
use prima_tensor::*;

/// `(shape, groups)`: one channel a group, one group, single pixels, odd channels, a sequence, large.
const CASES: [(&[usize], usize); 8] = [
    (&[1, 1, 1, 6], 3),
    (&[3, 2, 3, 5], 5),
    (&[1, 3, 3, 7], 1),
    (&[2, 5, 4, 12], 4),
    (&[3, 9, 6], 2),
    (&[3, 12], 3),
    (&[1, 33, 35, 48], 16),
    (&[3, 64, 40, 30], 10),
];

/// GroupNorm in f64. `t` is `[x, gamma, beta]`, `x` of shape `[batch, rows, gamma.len()]`.
fn reference(t: &[Vec<f64>; 3], batch: usize, groups: usize, eps: f64, silu: bool) -> Vec<f64> {
    let [x, gamma, beta] = t;
    let channels = gamma.len();
    let per_group = channels / groups;
    let mut out = vec![0.0; x.len()];
    for (x, out) in x.chunks(x.len() / batch).zip(out.chunks_mut(x.len() / batch)) {
        for g in 0..groups {
            let range = g * per_group..(g + 1) * per_group;
            let count = (x.len() / groups) as f64;
            let total = |f: &dyn Fn(f64) -> f64| {
                x.chunks(channels)
                    .flat_map(|row| &row[range.clone()])
                    .map(|&v| f(v))
                    .sum::<f64>()
            };
            let mean = total(&|v| v) / count;
            let var = total(&|v| (v - mean).powi(2)) / count;
            for (x, out) in x.chunks(channels).zip(out.chunks_mut(channels)) {
                for c in range.clone() {
                    let z = (x[c] - mean) / (var + eps).sqrt() * gamma[c] + beta[c];
                    out[c] = if silu { z / (1.0 + (-z).exp()) } else { z };
                }
            }
        }
    }
    out
}

fn wide(x: &Tensor) -> Vec<f64> {
    x.data().iter().map(|&v| f64::from(v)).collect()
}

fn wide3(x: &Tensor, gamma: &Param, beta: &Param) -> [Vec<f64>; 3] {
    [wide(x), wide(&gamma.tensor()), wide(&beta.tensor())]
}

fn parameters(channels: usize) -> (Param, Param) {
    let gamma = affine(&random_tensor(21, &[channels]), 0.5, 1.0);
    (Param::new(gamma), Param::new(random_tensor(22, &[channels])))
}

#[test]
fn a_norm_in_the_place_of_what_it_reads_is_the_same_to_the_bit() {
    for (shape, groups) in CASES {
        let (gamma, beta) = parameters(shape[shape.len() - 1]);
        for silu in [false, true] {
            let x = random_tensor(20, shape);
            let out = group_norm(&x, &gamma, &beta, groups, 1e-5, silu);
            let (shared, before) = (x.clone(), x.data().to_vec());
            let copied = group_norm_within(x, &gamma, &beta, groups, 1e-5, silu);
            assert_eq!(copied.data(), out.data());
            assert_eq!(shared.data(), before, "somebody else had it");
            let place = shared.data().as_ptr();
            let within = group_norm_within(shared, &gamma, &beta, groups, 1e-5, silu);
            assert_eq!(within.data(), out.data());
            assert_eq!(within.data().as_ptr(), place);
        }
    }
}

#[test]
fn group_norm_matches_the_reference() {
    for (shape, groups) in CASES {
        for silu in [false, true] {
            let x = affine(&random_tensor(20, shape), 2.0, 0.5);
            let (gamma, beta) = parameters(x.dim(-1));
            let want = reference(&wide3(&x, &gamma, &beta), shape[0], groups, 1e-5, silu);
            assert_close_f64(&group_norm(&x, &gamma, &beta, groups, 1e-5, silu), &want, 3e-6);
        }
    }
}

#[test]
fn group_norm_keeps_its_digits_far_from_zero() {
    let x = affine(&random_tensor(23, &[2, 31, 17, 8]), 1.0, 1000.0);
    let (gamma, beta) = parameters(8);
    let want = reference(&wide3(&x, &gamma, &beta), 2, 2, 1e-6, false);
    // The inputs themselves carry 6e-5 of rounding; the offset costs as much again.
    assert_close_f64(&group_norm(&x, &gamma, &beta, 2, 1e-6, false), &want, 1e-4);
}

#[test]
fn a_constant_picture_normalises_to_beta() {
    let x = Tensor::full(3.7, &[1, 4, 4, 6]);
    let (gamma, beta) = parameters(6);
    let y = group_norm(&x, &gamma, &beta, 3, 1e-5, false);
    let want = Tensor::from_vec(beta.tensor().data().repeat(16), &[1, 4, 4, 6]);
    // Scaled by 316, the values and what is subtracted are about 1170, which each rounding moves by up to 6e-5.
    assert_close(&y, &want, 2e-4);
}

#[test]
fn a_samples_norm_does_not_depend_on_its_batch() {
    let x = random_tensor(24, &[3, 64, 40, 30]);
    let (gamma, beta) = parameters(30);
    let whole = group_norm(&x, &gamma, &beta, 10, 1e-5, true);
    let one = group_norm(&take_batch(&x, 1, 1), &gamma, &beta, 10, 1e-5, true);
    assert_eq!(take_batch(&whole, 1, 1).data(), one.data());
}

/// Checks the gradients of `Σ w·y` that the tape gives against central differences of the f64
/// `reference` (of `[x, gamma, beta]`) along random directions.
#[track_caller]
fn check_norm(
    x: &Tensor,
    f: impl Fn(&Tensor, &Param, &Param) -> Tensor,
    reference: impl Fn(&[Vec<f64>; 3]) -> Vec<f64>,
    tolerance: f64,
) {
    let (gamma, beta) = parameters(x.dim(-1));
    gamma.set_trainable(true);
    beta.set_trainable(true);
    let leaf = x.requires_grad();
    let y = f(&leaf, &gamma, &beta);
    let w = random_tensor(25, y.shape());
    // mean((y - (y0 - w))²) has gradient 2 w / n at y = y0.
    let target = sub(&y.detach(), &w);
    let weight = vec![y.numel() as f32 / 2.0; y.dim(0)];
    let gradients = weighted_mse(&y, &target, &weight).backward();
    let inputs = wide3(x, &gamma, &beta);
    let got = [gradients.get(&leaf), gradients.param(&gamma), gradients.param(&beta)];
    for (which, got) in got.into_iter().enumerate() {
        let got = got.unwrap_or_else(|| panic!("input {which} has no gradient"));
        assert_eq!(got.numel(), inputs[which].len());
        let size = wide(got).iter().map(|v| v * v).sum::<f64>().sqrt();
        for seed in 30..33 {
            let direction = wide(&random_tensor(seed, got.shape()));
            let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
            let at = |h: f64| {
                let mut moved = inputs.clone();
                moved[which].iter_mut().zip(&direction).for_each(|(v, d)| *v += h * d);
                reference(&moved).iter().zip(wide(&w)).map(|(y, w)| y * w).sum::<f64>()
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            let tape: f64 = wide(got).iter().zip(&direction).map(|(g, d)| g * d).sum();
            let off = (slope - tape).abs();
            // In groups of two values terms of order one cancel almost wholly: hence the constant.
            assert!(
                off < tolerance * (size + 0.1) * length,
                "input {which}: tape {tape}, reference {slope}"
            );
        }
    }
}

#[test]
fn group_norm_gradients_match_the_reference() {
    for (shape, groups) in CASES {
        for silu in [false, true] {
            let x = affine(&random_tensor(26, shape), 2.0, 0.5);
            check_norm(
                &x,
                |x, gamma, beta| group_norm(x, gamma, beta, groups, 1e-5, silu),
                |t| reference(t, shape[0], groups, 1e-5, silu),
                1e-5,
            );
        }
    }
}

#[test]
fn layer_norm_and_its_gradients_match_the_reference() {
    for shape in [&[1, 1, 5][..], &[3, 7, 33], &[2, 4, 4, 16], &[4, 2], &[3, 70, 320]] {
        let x = affine(&random_tensor(27, shape), 2.0, -1.5);
        let (gamma, beta) = parameters(x.dim(-1));
        // LayerNorm is GroupNorm with one group where every row is a sample.
        let layer = |t: &[Vec<f64>; 3]| reference(t, x.numel() / x.dim(-1), 1, 1e-5, false);
        let want = layer(&wide3(&x, &gamma, &beta));
        assert_close_f64(&layer_norm(&x, &gamma, &beta, 1e-5), &want, 3e-6);
        check_norm(&x, |x, gamma, beta| layer_norm(x, gamma, beta, 1e-5), layer, 1e-5);
    }
}

#[test]
fn frozen_norms_pass_the_gradient_through() {
    let x = random_tensor(28, &[2, 3, 3, 8]);
    let (gamma, beta) = parameters(8);
    let x = [x];
    check_gradients(&x, |t| group_norm(&t[0], &gamma, &beta, 4, 1e-5, true), 2e-3);
    check_gradients(&x, |t| layer_norm(&t[0], &gamma, &beta, 1e-5), 2e-3);
}

#[test]
fn trainable_norms_get_gradients_when_their_input_is_frozen() {
    let x = random_tensor(29, &[2, 3, 3, 8]);
    let (gamma, beta) = parameters(8);
    gamma.set_trainable(true);
    let y = group_norm(&x, &gamma, &beta, 4, 1e-5, true);
    let gradients = weighted_mse(&y, &Tensor::zeros(y.shape()), &[1.0, 1.0]).backward();
    assert!(
        gradients
            .param(&gamma)
            .is_some_and(|g| g.data().iter().any(|v| *v != 0.0))
    );
    assert!(gradients.param(&beta).is_none());
}
