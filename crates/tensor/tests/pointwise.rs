//! Activations, GEGLU, elementwise ops and losses against f64 references and differences.

mod common;

use common::{assert_close, assert_close_f64, check_gradients, random_tensor};
use prima_tensor::*;

const KINDS: [Activation; 8] = [
    Activation::None,
    Activation::Relu,
    Activation::Relu6,
    Activation::Silu,
    Activation::Gelu,
    Activation::QuickGelu,
    Activation::Tanh,
    Activation::Softplus,
];
/// Odd sizes, single values, and one large enough for the parallel path.
const SHAPES: [&[usize]; 4] = [&[1], &[3, 5], &[1, 1, 1, 7], &[3, 150, 151]];

/// erf by its series: exact to f64 for |x| < 5.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..150 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

fn reference(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => gelu(x),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
    }
}

fn map64(x: &Tensor, f: impl Fn(f64) -> f64) -> Vec<f64> {
    x.data().iter().map(|&v| f(f64::from(v))).collect()
}

fn zip64(x: &Tensor, y: &Tensor, f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    x.data()
        .iter()
        .zip(y.data())
        .map(|(&a, &b)| f(f64::from(a), f64::from(b)))
        .collect()
}

/// Values on both sides of every kink and none within a difference step of one.
fn away_from_kinks(seed: u64, shape: &[usize]) -> Tensor {
    let noise = random_tensor(seed, shape);
    let nudge = |v: f32| {
        if v.abs() < 0.1 || (v - 6.0).abs() < 0.1 {
            v + 0.3
        } else {
            v
        }
    };
    Tensor::from_vec(noise.data().iter().map(|&v| nudge(4.0 * v)).collect(), shape)
}

#[test]
fn activations_match_the_reference() {
    for kind in KINDS {
        for shape in SHAPES {
            let x = random_tensor(1, shape);
            assert_close_f64(&activation(&x, kind), &map64(&x, |v| reference(kind, v)), 1e-6);
        }
        let line = Tensor::from_vec((-400..=400).map(|i| i as f32 * 0.01).collect(), &[801]);
        for (got, want) in activation(&line, kind)
            .data()
            .iter()
            .zip(map64(&line, |v| reference(kind, v)))
        {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{kind:?}: {got} and {want}");
        }
    }
}

#[test]
fn activations_of_extreme_values_stay_finite() {
    let x = Tensor::from_vec(vec![-1e4, -100.0, 100.0, 1e4], &[4]);
    for kind in [Activation::Silu, Activation::Gelu, Activation::QuickGelu] {
        let y = activation(&x, kind);
        assert!(y.data()[..2].iter().all(|v| v.abs() < 1e-30), "{kind:?}: {y:?}");
        assert_eq!(y.data()[2..], [100.0, 1e4], "{kind:?}");
    }
    assert_eq!(activation(&x, Activation::Tanh).data(), [-1.0, -1.0, 1.0, 1.0]);
    assert_eq!(activation(&x, Activation::Softplus).data()[2..], [100.0, 1e4]);
    assert!(activation(&Tensor::scalar(f32::NAN), Activation::Silu).item().is_nan());
    assert!(activation(&Tensor::scalar(f32::NAN), Activation::Relu).item().is_nan());
}

#[test]
fn activation_gradients_match_differences() {
    for kind in KINDS {
        for shape in &SHAPES[..3] {
            check_gradients(&[away_from_kinks(2, shape)], |t| activation(&t[0], kind), 2e-3);
        }
    }
}

#[test]
fn activation_backward_is_exact_on_the_parallel_path() {
    let x = random_tensor(3, SHAPES[3]).requires_grad();
    let y = activation(&x, Activation::Silu);
    let weights = random_tensor(4, SHAPES[3]);
    let loss = weighted_mse(&y, &weights, &[1.0; 3]);
    let grads = loss.backward();
    let n = x.numel() as f64;
    let want = zip64(&x, &weights, |x, w| {
        let s = 1.0 / (1.0 + (-x).exp());
        2.0 * (x * s - w) / n * (s + x * s * (1.0 - s))
    });
    assert_close_f64(
        &scaled(grads.get(&x).unwrap(), n),
        &want.iter().map(|v| v * n).collect::<Vec<_>>(),
        2e-6,
    );
}

fn scaled(x: &Tensor, by: f64) -> Tensor {
    affine(x, by as f32, 0.0)
}

#[test]
fn geglu_matches_the_reference_and_its_gradient_the_differences() {
    for shape in [&[1, 2][..], &[3, 1, 6], &[2, 5, 34], &[3, 64, 1022]] {
        let x = random_tensor(5, shape);
        let half = shape[shape.len() - 1] / 2;
        let want: Vec<f64> = x
            .data()
            .chunks(2 * half)
            .flat_map(|row| (0..half).map(move |i| f64::from(row[i]) * gelu(f64::from(row[half + i]))))
            .collect();
        let got = geglu(&x);
        assert_eq!(got.dim(-1), half);
        assert_close_f64(&got, &want, 1e-6);
        if x.numel() < 1000 {
            check_gradients(&[x], |t| geglu(&t[0]), 2e-3);
        }
    }
}

#[test]
fn binary_ops_match_the_reference() {
    for shape in SHAPES {
        let (a, b) = (random_tensor(6, shape), random_tensor(7, shape));
        assert_close_f64(&add(&a, &b), &zip64(&a, &b, |a, b| a + b), 1e-6);
        assert_close_f64(&sub(&a, &b), &zip64(&a, &b, |a, b| a - b), 1e-6);
        assert_close_f64(&mul(&a, &b), &zip64(&a, &b, |a, b| a * b), 1e-6);
        assert_close_f64(&affine(&a, -2.5, 0.75), &map64(&a, |a| -2.5 * a + 0.75), 1e-6);
    }
}

#[test]
fn binary_gradients_match_differences() {
    for shape in &SHAPES[..3] {
        let inputs = [random_tensor(8, shape), random_tensor(9, shape)];
        check_gradients(&inputs, |t| add(&t[0], &t[1]), 2e-3);
        check_gradients(&inputs, |t| sub(&t[0], &t[1]), 2e-3);
        check_gradients(&inputs, |t| mul(&t[0], &t[1]), 2e-3);
        check_gradients(&inputs[..1], |t| mul(&t[0], &t[0]), 2e-3);
        check_gradients(&inputs[..1], |t| affine(&t[0], -2.5, 0.75), 2e-3);
    }
}

#[test]
fn combine_per_sample_uses_each_samples_own_factors() {
    for shape in [&[3, 2, 2, 5][..], &[1, 7], &[3, 150, 151]] {
        let (x, y) = (random_tensor(10, shape), random_tensor(11, shape));
        let (a, c) = (&[0.5, -2.0, 3.0][..shape[0]], &[1.5, 0.25, -1.0][..shape[0]]);
        let sample = x.numel() / shape[0];
        let want: Vec<f64> = zip64(&x, &y, |x, _| x)
            .iter()
            .zip(y.data())
            .enumerate()
            .map(|(i, (x, &y))| f64::from(a[i / sample]) * x + f64::from(c[i / sample]) * f64::from(y))
            .collect();
        assert_close_f64(&combine_per_sample(a, &x, c, &y), &want, 1e-6);
        if x.numel() < 1000 {
            check_gradients(&[x, y], |t| combine_per_sample(a, &t[0], c, &t[1]), 2e-3);
        }
    }
}

#[test]
fn add_per_sample_channel_broadcasts_over_the_middle_axes() {
    for shape in [&[3, 2, 3, 5][..], &[1, 4, 1], &[3, 7], &[3, 150, 151]] {
        let (x, v) = (
            random_tensor(12, shape),
            random_tensor(13, &[shape[0], shape[shape.len() - 1]]),
        );
        let (sample, channels) = (x.numel() / shape[0], v.dim(-1));
        let want: Vec<f64> = (0..x.numel())
            .map(|i| f64::from(x.data()[i]) + f64::from(v.data()[i / sample * channels + i % channels]))
            .collect();
        assert_close_f64(&add_per_sample_channel(&x, &v), &want, 1e-6);
        if x.numel() < 1000 {
            check_gradients(&[x, v], |t| add_per_sample_channel(&t[0], &t[1]), 2e-3);
        }
    }
}

type Loss = fn(&Tensor, &Tensor, &[f32]) -> Tensor;
/// The loss of one difference.
type Value = fn(f64) -> f64;

#[test]
fn losses_match_the_reference_and_their_gradients_the_differences() {
    let losses: [(Loss, Value); 3] = [
        (|x, t, w| weighted_mse(x, t, w), |d| d * d),
        (
            |x, t, w| weighted_pseudo_huber(x, t, w, 0.3),
            |d| (d * d + 0.09).sqrt() - 0.3,
        ),
        (|x, t, _| mean_absolute_error(x, t), f64::abs),
    ];
    for (which, (loss, value)) in losses.iter().enumerate() {
        for shape in [&[3, 2, 2, 3][..], &[1, 1], &[3, 150, 151]] {
            let (target, gap) = (random_tensor(14, shape), away_from_kinks(15, shape));
            let x = add(&target, &gap);
            let weight: Vec<f32> = (0..shape[0])
                .map(|b| if which == 2 { 1.0 } else { 0.5 + b as f32 })
                .collect();
            let sample = x.numel() / shape[0];
            let terms = zip64(&x, &target, |x, t| value(x - t));
            let sum: f64 = terms
                .iter()
                .enumerate()
                .map(|(i, v)| f64::from(weight[i / sample]) * v)
                .sum();
            let got = f64::from(loss(&x, &target, &weight).item());
            let want = sum / x.numel() as f64;
            assert!((got - want).abs() < 1e-6 * want.abs(), "loss {which}: {got} and {want}");
            if x.numel() < 1000 {
                check_gradients(&[x], |t| loss(&t[0], &target, &weight), 2e-3);
            }
        }
    }
}

#[test]
fn losses_have_no_gradient_where_they_have_no_slope() {
    let x = Tensor::full(0.5, &[1, 4]).requires_grad();
    let target = Tensor::full(0.5, &[1, 4]).requires_grad();
    for loss in [
        mean_absolute_error(&x, &target),
        weighted_pseudo_huber(&x, &target, &[1.0], 0.0),
    ] {
        assert_eq!(loss.item(), 0.0);
        let gradients = loss.backward();
        assert_eq!(gradients.get(&x).unwrap().data(), [0.0; 4]);
        assert!(gradients.get(&target).is_none(), "the target is a constant");
    }
}

#[test]
fn ops_off_the_tape_leave_nothing_on_it() {
    let (a, b) = (random_tensor(16, &[2, 4]), random_tensor(17, &[2, 4]).requires_grad());
    assert!(!is_recording(&[&mul(&a, &a)]));
    assert!(is_recording(&[&mul(&a, &b)]));
    assert!(no_grad(|| !is_recording(&[&b])) && !is_recording(&[&no_grad(|| mul(&a, &b))]));
    assert_close(&mul(&a, &b.detach()), &no_grad(|| mul(&a, &b)), 0.0);
}

#[test]
fn prelu_has_a_slope_for_each_channel() {
    let x = Tensor::from_vec(vec![-2.0, -2.0, 0.0, 3.0, -1.0, -0.5, 4.0, -4.0], &[1, 2, 2, 2]);
    let y = prima_tensor::prelu(x, &prima_tensor::Param::new(Tensor::from_vec(vec![0.5, -1.0], &[2])));
    assert_eq!(y.data(), [-1.0, 2.0, 0.0, 3.0, -0.5, 0.5, 4.0, 4.0]);
}
