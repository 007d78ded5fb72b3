//! Nanoseconds a value of the pointwise ops and norms, forward and backward (best of several runs).

use prima_tensor::{
    Activation, Param, Philox, Tensor, TorchCpuRng, activation, add, geglu, group_norm, layer_norm, weighted_mse,
};
use std::time::Instant;

fn report(name: &str, values: usize, mut f: impl FnMut()) {
    f();
    let best = (0..100)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::MAX, f64::min);
    println!(
        "{name:<36} {:>8.3} ms {:>7.3} ns/value",
        best * 1e3,
        best * 1e9 / values as f64
    );
}

fn main() {
    // Small: a run has to fit between two preemptions on a busy machine.
    let shape = [4, 8, 8, 256];
    let noise = Philox {
        seed: 1,
        image: 0,
        purpose: 0,
        step: 0,
    };
    let x = Tensor::from_vec(noise.normal(shape.iter().product()), &shape);
    let (gamma, beta) = (Param::new(Tensor::full(1.0, &[256])), Param::new(Tensor::zeros(&[256])));
    let n = x.numel();
    let trained = x.requires_grad();
    let target = Tensor::zeros(&shape);
    let weight = [1.0; 4];
    report("weighted_mse forward + backward", n, || {
        drop(weighted_mse(&trained, &target, &weight).backward());
    });
    report("copy", n, || drop(x.data().to_vec()));
    report("add", n, || drop(add(&x, &x)));
    for silu in [false, true] {
        report(&format!("group_norm silu={silu}"), n, || {
            drop(group_norm(&x, &gamma, &beta, 32, 1e-5, silu));
        });
        report(&format!("group_norm silu={silu} + mse backward"), n, || {
            drop(weighted_mse(&group_norm(&trained, &gamma, &beta, 32, 1e-5, silu), &target, &weight).backward());
        });
    }
    report("layer_norm", n, || drop(layer_norm(&x, &gamma, &beta, 1e-5)));
    report("layer_norm + mse backward", n, || {
        drop(weighted_mse(&layer_norm(&trained, &gamma, &beta, 1e-5), &target, &weight).backward());
    });
    for kind in [Activation::Relu, Activation::Silu, Activation::Gelu, Activation::Tanh] {
        report(&format!("{kind:?}"), n, || drop(activation(&x, kind)));
    }
    report("geglu", n, || drop(geglu(&x)));
    report("philox normal", n, || {
        drop(noise.normal(n));
    });
    report("torch randn", n, || drop(TorchCpuRng::new(1).randn(&[n])));
}
