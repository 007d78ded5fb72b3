//! Noise: independence of the threads, statistics, torch's generator.

use prima_tensor::{Philox, TorchCpuRng};

const NOISE: Philox = Philox { seed: 42, image: 0, purpose: 1, step: 0 };

#[test]
fn the_first_values_do_not_depend_on_how_many_are_drawn() {
    let long = NOISE.normal(100_003);
    for len in [1, 3, 5, 16, 4097] {
        assert_eq!(NOISE.normal(len), long[..len]);
    }
}

#[test]
fn every_part_of_the_key_changes_the_noise() {
    let base = NOISE.normal(64);
    let others = [
        Philox { seed: 43, ..NOISE },
        Philox { seed: 42 | 1 << 32, ..NOISE },
        Philox { image: 1, ..NOISE },
        Philox { purpose: 2, ..NOISE },
        Philox { step: 1, ..NOISE },
    ];
    for other in others {
        assert_ne!(base, other.normal(64), "{other:?}");
    }
}

#[test]
fn philox_values_have_the_moments_of_their_distributions() {
    let normal = NOISE.normal(1 << 20);
    let n = normal.len() as f64;
    let moment = |p: i32| normal.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / n;
    assert!(moment(1).abs() < 5e-3 && (moment(2) - 1.0).abs() < 1e-2);
    assert!(moment(3).abs() < 2e-2 && (moment(4) - 3.0).abs() < 5e-2);
    let uniform = NOISE.uniform(1 << 20);
    assert!(uniform.iter().all(|v| (0.0..1.0).contains(v)));
    let mean = uniform.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    assert!((mean - 0.5).abs() < 2e-3);
}

#[test]
fn torch_state_continues_between_calls() {
    let mut one = TorchCpuRng::new(7);
    let mut other = TorchCpuRng::new(7);
    let first = one.randn(&[2, 16]);
    let second = one.randn(&[2, 16]);
    let both = other.randn(&[4, 16]);
    assert_eq!(first.data(), &both.data()[..32]);
    assert_eq!(second.data(), &both.data()[32..]);
}
