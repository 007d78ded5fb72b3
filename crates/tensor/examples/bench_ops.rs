//! `cargo xtask bench ops`: GFLOP/s of each op, the machine's measured peak, the fraction reached.
//! Every figure is the median of several runs; these machines are noisy.

use prima_tensor::{
    Activation, Conv2d, DType, Param, Tensor, add, attention, attention_in, conv2d, group_norm, kernel_name, linear,
    no_grad, peak_gflops, upsample_conv2d, weighted_mse,
};
use std::time::Instant;

/// Speed does not depend on the values; a sine keeps them bounded and never denormal.
fn random(shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_vec((0..count).map(|i: usize| (i as f32 * 0.7371).sin()).collect(), shape)
}

fn param(shape: &[usize]) -> Param {
    Param::new(random(shape))
}

/// Median seconds of one call.
fn median_seconds(mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || (start.elapsed().as_secs_f64() < 1.0 && times.len() < 50) {
        let t = Instant::now();
        f();
        times.push(t.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn report(name: &str, flops: f64, peak: f64, f: impl FnMut()) {
    let gflops = flops / median_seconds(f) / 1e9;
    println!("{name:<44} {gflops:>9.1} {:>8.0} %", 100.0 * gflops / peak);
}

/// In f32, then with weights in bf16.
fn for_dtypes(weight: Param, mut bench: impl FnMut(&Param, &str)) {
    bench(&weight, "f32");
    weight.narrow_to_bf16();
    bench(&weight, "bf16");
}

fn bench_linear(m: usize, k: usize, n: usize, peak: f64) {
    let x = random(&[m, k]);
    for_dtypes(param(&[n, k]), |w, dtype| {
        let name = format!("linear {m}x{k}x{n} {dtype}");
        report(&name, 2.0 * (m * k * n) as f64, peak, || {
            no_grad(|| linear(&x, w, None, Activation::None, None));
        });
    });
}

fn bench_conv(channels: usize, size: usize, peak: f64) {
    let x = random(&[1, size, size, channels]);
    let flops = 2.0 * (size * size * channels * channels * 9) as f64;
    for_dtypes(param(&[channels, channels, 3, 3]), |w, dtype| {
        report(
            &format!("conv 3x3 {channels}ch {size}x{size} {dtype}"),
            flops,
            peak,
            || {
                no_grad(|| conv2d(&x, w, None, Conv2d::padded(1), Activation::None, None));
            },
        );
    });
}

/// GFLOP/s as if the doubled picture were convolved.
fn bench_upsample_conv(channels: usize, size: usize, peak: f64) {
    let (x, w) = (random(&[1, size, size, channels]), param(&[channels, channels, 3, 3]));
    let flops = 2.0 * (4 * size * size * channels * channels * 9) as f64;
    let name = format!("doubling + conv 3x3 {channels}ch {size}x{size} f32");
    report(&name, flops, peak, || {
        no_grad(|| upsample_conv2d(&x, &w, None));
    });
}

fn bench_attention(heads: usize, length: usize, dim: usize, peak: f64) {
    let x = random(&[1, length, heads * dim]);
    let flops = 4.0 * (heads * length * length * dim) as f64;
    // bf16 is f32 again where the processor has no products of bf16.
    for (dtype, name) in [(DType::F32, "f32"), (DType::BF16, "bf16")] {
        let name = format!("attention {heads} heads x {length} x {dim} {name}");
        report(&name, flops, peak, || {
            no_grad(|| attention_in(dtype, &x, &x, &x, heads, false));
        });
    }
}

/// Memory-bound: reported as GB/s of reads and writes.
fn bench_group_norm(channels: usize, size: usize) {
    let x = random(&[1, size, size, channels]);
    let (gamma, beta) = (param(&[channels]), param(&[channels]));
    let seconds = median_seconds(|| {
        no_grad(|| group_norm(&x, &gamma, &beta, 32, 1e-5, true));
    });
    let name = format!("group_norm+silu {channels}ch {size}x{size} f32");
    println!("{name:<44} {:>9.1} GB/s", 12.0 * x.numel() as f64 / seconds / 1e9);
}

/// One training step (forward, backward) of convolutions of 64 to 256 channels at 32x32 and one attention.
fn bench_training(batch: usize, peak: f64) {
    let size = 32;
    let widths = [64, 128, 256];
    let first = param(&[64, 64, 3, 3]);
    let convs: Vec<Param> = widths.windows(2).map(|w| param(&[w[1], w[0], 3, 3])).collect();
    let squares: Vec<Param> = widths[1..].iter().map(|&c| param(&[c, c, 3, 3])).collect();
    for p in convs.iter().chain(&squares).chain([&first]) {
        p.update(|v| v.iter_mut().for_each(|x| *x *= 0.02));
        p.set_trainable(true);
    }
    let x = random(&[batch, size, size, 64]);
    let target = Tensor::zeros(&[batch, size, size, 256]);
    let conv = |x: &Tensor, w: &Param| conv2d(x, w, None, Conv2d::padded(1), Activation::None, None);
    let pixels = batch * size * size;
    let conv_flops: usize = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256)]
        .iter()
        .map(|(i, o)| 18 * i * o)
        .sum();
    let attention_flops = 4 * size * size * 256;
    report(
        &format!("training step, batch {batch}, 32x32 f32"),
        3.0 * (pixels * (conv_flops + attention_flops)) as f64,
        peak,
        || {
            let mut h = conv(&x, &first);
            for (up, square) in convs.iter().zip(&squares) {
                h = conv(&conv(&h, up), square);
            }
            let tokens = h.reshape(&[batch, size * size, 256]);
            let h = add(&tokens, &attention(&tokens, &tokens, &tokens, 4, false)).reshape(target.shape());
            std::hint::black_box(weighted_mse(&h, &target, &vec![1.0; batch]).backward());
        },
    );
}

fn main() {
    prima_tensor::keep_large_buffers();
    let peak = peak_gflops();
    println!(
        "kernel {}, {} threads, measured peak {peak:.1} GFLOP/s f32\n",
        kernel_name(),
        rayon::current_num_threads()
    );
    println!("{:<44} {:>9} {:>10}", "op", "GFLOP/s", "of peak");
    bench_linear(4096, 640, 640, peak);
    bench_linear(1024, 1280, 10240, peak);
    bench_conv(320, 64, peak);
    bench_conv(1280, 16, peak);
    bench_conv(128, 256, peak);
    bench_conv(32, 128, peak);
    bench_conv(16, 128, peak);
    bench_upsample_conv(32, 64, peak);
    bench_conv(96, 16, peak);
    bench_attention(10, 4096, 64, peak);
    bench_attention(4, 256, 32, peak);
    bench_group_norm(320, 64);
    bench_training(4, peak);
}
