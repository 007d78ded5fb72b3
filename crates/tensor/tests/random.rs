//! Noise: independence of the threads, statistics, torch's generator.

use prima_tensor::{Philox, TorchCpuRng};

const NOISE: Philox = Philox {
    seed: 42,
    image: 0,
    purpose: 1,
    step: 0,
};

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
        Philox {
            seed: 0x1_0000_002A,
            ..NOISE
        },
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

/// Values of torch 2.13: one generator, `manual_seed(123456789012)`, then `randn` of these sizes.
/// They cross the serial path with its kept second value and the chunked one with its tail.
#[test]
fn torch_values_are_reproduced_across_both_paths() {
    let draws: [&[f32]; 7] = [
        &[-0.6109422, -0.3390816, -0.3387562],
        &[1.0420372],
        &[-0.2285364, -1.0248593],
        &[
            0.9742882, 0.8730711, 0.7385176, 0.5625417, -0.1509733, 0.5200965, 0.3594357, 0.9238375, -0.0935835,
            0.799844, -1.1874124, -0.0880375, -0.678457, 0.8024366, 0.134756, 0.1367099, -1.0287303,
        ],
        &[0.2260578, 1.6914961, 2.2267263, -2.1882827, -1.030564],
        &[
            0.4066333, -0.1629479, 0.4588726, -0.5822583, -0.1371412, -0.9168252, -1.101666, -2.2521095, 0.2619346,
            -0.1911682, 1.0444937, -0.8045607, -0.9482895, 1.5046364, -1.2850871, -0.1299753, -0.2235296, 0.478956,
            0.7754833, -0.1354807,
        ],
        &[-1.8192242],
    ];
    let mut rng = TorchCpuRng::new(123_456_789_012);
    for (call, want) in draws.iter().enumerate() {
        let got = rng.randn(&[want.len()]);
        for (i, (a, b)) in got.data().iter().zip(*want).enumerate() {
            assert!((a - b).abs() < 2e-6, "call {call}, value {i}: {a}, torch gives {b}");
        }
    }
}

#[test]
fn torch_golden_is_reproduced_in_f32() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/torch_randn.json");
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let numbers =
        |v: &serde_json::Value| -> Vec<f64> { v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let cases = golden["cases"].as_array().unwrap();
    let f32_cases: Vec<_> = cases.iter().filter(|c| c["dtype"] == "float32").collect();
    assert!(f32_cases.len() >= 10, "the golden lost its f32 cases");
    for case in f32_cases {
        let mut rng = TorchCpuRng::new(case["seed"].as_u64().unwrap());
        for call in case["calls"].as_array().unwrap() {
            let shape: Vec<usize> = numbers(&call["shape"]).iter().map(|&v| v as usize).collect();
            let got = rng.randn(&shape);
            for (i, (a, b)) in got.data().iter().zip(numbers(&call["values"])).enumerate() {
                assert!(
                    (f64::from(*a) - b).abs() < 2e-6,
                    "seed {}, {shape:?}, value {i}: {a} and {b}",
                    case["seed"]
                );
            }
        }
    }
    let long = &golden["long"];
    let got = TorchCpuRng::new(long["seed"].as_u64().unwrap()).randn(&[long["count"].as_u64().unwrap() as usize]);
    for (at, want) in numbers(&long["index"]).iter().zip(numbers(&long["values"])) {
        assert!(
            (f64::from(got.data()[*at as usize]) - want).abs() < 2e-6,
            "long draw, value {at}"
        );
    }
}
