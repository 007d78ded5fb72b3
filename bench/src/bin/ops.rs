//! `cargo xtask bench ops`: GFLOP/s of each op, the machine's measured peaks, the fraction reached.
//! Every figure is the median of several runs; these machines are noisy.
//!
//! For `bench/ops/bench.py`, which runs other engines beside this one: `--list` prints the ops, `--json N...` those with
//! these numbers, as one JSON object a line.

use anyhow::{Context, Result, bail};
use prima_tensor::{
    Activation, Conv2d, DType, Param, Tensor, add, attention_in, bf16_peak_gflops, conv2d, group_norm, int8_peak_gops,
    kernel_name, linear, no_grad, peak_gflops, upsample_conv2d, weighted_mse,
};
use serde_json::json;
use std::time::Instant;

/// What is measured.
#[derive(Clone, Copy)]
enum Kind {
    /// `[m, k] x [k, n]`.
    Linear([usize; 3]),
    /// 3x3: channels in and out, height and width.
    Conv([usize; 2]),
    /// The same of a picture of half that size, doubled; counted as if the doubled picture were convolved.
    DoubledConv([usize; 2]),
    /// Heads, queries and keys, values of a head.
    Attention([usize; 3]),
    /// Forward and backward of 3x3 convolutions of 64 to 256 channels at 32x32 and one attention; batch.
    Training([usize; 1]),
    /// Forward and backward of the layers that take the time in a small autoencoder, [`NARROW`], on 128x128 pixels; batch.
    NarrowTraining([usize; 1]),
}

struct Op {
    kind: Kind,
    /// What the weights are kept in, and the factors of products with them.
    dtype: Factors,
    /// What the project asked for, as a fraction of the peak (DESIGN: 300 of 450 GFLOP/s in f32, 600 of 900 in bf16, 350 of
    /// 900 for attention, 200 of 450 for training).
    floor: Option<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Factors {
    F32,
    Bf16,
    Int8,
}

impl Factors {
    /// Of attention and training, which have no products of 8 bits.
    fn dtype(self) -> DType {
        if self == Self::F32 { DType::F32 } else { DType::BF16 }
    }
}

fn ops() -> Vec<Op> {
    let mut ops = Vec::new();
    let mut both = |kind, f32_floor: Option<f64>, bf16_floor: Option<f64>| {
        for (dtype, floor) in [(Factors::F32, f32_floor), (Factors::Bf16, bf16_floor)] {
            ops.push(Op { kind, dtype, floor });
        }
    };
    let products = (Some(300.0 / 450.0), Some(600.0 / 900.0));
    for sizes in [[4096, 640, 640], [1024, 1280, 10240]] {
        both(Kind::Linear(sizes), products.0, products.1);
    }
    for sizes in [[320, 64], [640, 32], [1280, 16], [128, 256]] {
        both(Kind::Conv(sizes), products.0, products.1);
    }
    for sizes in [[96, 16], [32, 128], [16, 128]] {
        both(Kind::Conv(sizes), None, None);
    }
    both(Kind::Attention([10, 4096, 64]), None, Some(350.0 / 900.0));
    both(Kind::Attention([4, 256, 32]), None, None);
    both(Kind::Training([4]), Some(200.0 / 450.0), None);
    both(Kind::NarrowTraining([4]), None, None);
    ops.push(Op {
        kind: Kind::DoubledConv([32, 128]),
        dtype: Factors::F32,
        floor: None,
    });
    let int8 = [
        Kind::Linear([4096, 640, 640]),
        Kind::Linear([1024, 1280, 10240]),
        Kind::Linear([256, 5120, 1280]),
        Kind::Linear([77, 1280, 5120]),
        Kind::Conv([320, 64]),
        Kind::Conv([640, 32]),
        Kind::Conv([1280, 16]),
        Kind::Conv([128, 256]),
        Kind::Conv([512, 128]),
        Kind::DoubledConv([512, 128]),
    ];
    ops.extend(int8.map(|kind| Op {
        kind,
        dtype: Factors::Int8,
        floor: None,
    }));
    ops
}

/// Speed does not depend on the values; a sine keeps them bounded and never denormal.
fn random(shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_vec((0..count).map(|i: usize| (i as f32 * 0.7371).sin()).collect(), shape)
}

fn param(shape: &[usize], dtype: Factors) -> Param {
    let param = Param::new(random(shape));
    match dtype {
        Factors::F32 => {}
        Factors::Bf16 => param.narrow_to_bf16(),
        Factors::Int8 => param.quantize_to_int8(),
    }
    param
}

/// Median seconds of one call: of at least five, for a second, after a fifth of one.
fn median_seconds(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < 0.2 {
        f();
    }
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || start.elapsed().as_secs_f64() < 1.0 {
        let t = Instant::now();
        f();
        times.push(t.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

impl Op {
    fn dtype_name(&self) -> &'static str {
        match self.dtype {
            Factors::F32 => "f32",
            Factors::Bf16 => "bf16",
            Factors::Int8 => "int8",
        }
    }

    fn name(&self) -> String {
        let what = match self.kind {
            Kind::Linear([m, k, n]) => format!("linear {m}x{k}x{n}"),
            Kind::Conv([channels, size]) => format!("conv 3x3 {channels}ch {size}x{size}"),
            Kind::DoubledConv([channels, size]) => format!("doubling + conv 3x3 {channels}ch {size}x{size}"),
            Kind::Attention([heads, length, dim]) => format!("attention {heads} heads x {length} x {dim}"),
            Kind::Training([batch]) => format!("training step, batch {batch}, 32x32"),
            Kind::NarrowTraining([batch]) => format!("narrow training step, batch {batch}, 128x128"),
        };
        format!("{what} {}", self.dtype_name())
    }

    fn json(&self) -> serde_json::Value {
        let (kind, sizes): (_, &[usize]) = match &self.kind {
            Kind::Linear(sizes) => ("linear", sizes),
            Kind::Conv(sizes) => ("conv", sizes),
            Kind::DoubledConv(sizes) => ("doubled_conv", sizes),
            Kind::Attention(sizes) => ("attention", sizes),
            Kind::Training(sizes) => ("training", sizes),
            Kind::NarrowTraining(sizes) => ("narrow_training", sizes),
        };
        json!({"name": self.name(), "kind": kind, "sizes": sizes, "dtype": self.dtype_name(), "flops": self.flops()})
    }

    fn flops(&self) -> f64 {
        let count = match self.kind {
            Kind::Linear([m, k, n]) => 2 * m * k * n,
            Kind::Conv([channels, size]) | Kind::DoubledConv([channels, size]) => {
                18 * size * size * channels * channels
            }
            Kind::Attention([heads, length, dim]) => 4 * heads * length * length * dim,
            Kind::Training([batch]) => {
                let pixels = 32 * 32;
                let conv: usize = TRAINED.iter().map(|(i, o)| 18 * i * o).sum();
                3 * batch * pixels * (conv + 4 * pixels * 256)
            }
            Kind::NarrowTraining([batch]) => {
                let of = |(i, o, step): &(usize, usize, Step)| 18 * i * o * step.size(128).pow(2);
                3 * batch * NARROW.iter().map(of).sum::<usize>()
            }
        };
        count as f64
    }

    /// Median seconds.
    fn measure(&self) -> f64 {
        let conv = |x: &Tensor, w: &Param| conv2d(x, w, None, Conv2d::padded(1), Activation::None, None);
        match self.kind {
            Kind::Linear([m, k, n]) => {
                let (x, w) = (random(&[m, k]), param(&[n, k], self.dtype));
                median_seconds(|| drop(no_grad(|| linear(&x, &w, None, Activation::None, None))))
            }
            Kind::Conv([channels, size]) => {
                let x = random(&[1, size, size, channels]);
                let w = param(&[channels, channels, 3, 3], self.dtype);
                median_seconds(|| drop(no_grad(|| conv(&x, &w))))
            }
            Kind::DoubledConv([channels, size]) => {
                let x = random(&[1, size / 2, size / 2, channels]);
                let w = param(&[channels, channels, 3, 3], self.dtype);
                median_seconds(|| drop(no_grad(|| upsample_conv2d(&x, &w, None))))
            }
            Kind::Attention([heads, length, dim]) => {
                let x = random(&[1, length, heads * dim]);
                // bf16 is f32 again where the processor has no products of bf16.
                median_seconds(|| drop(no_grad(|| attention_in(self.dtype.dtype(), &x, &x, &x, heads, false))))
            }
            Kind::Training([batch]) => training(batch, self.dtype.dtype(), conv),
            Kind::NarrowTraining([batch]) => narrow_training(batch, self.dtype.dtype()),
        }
    }
}

/// Channels of the convolutions of the training step.
const TRAINED: [(usize, usize); 5] = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256)];

/// In bf16 the weights stay f32 and the factors of products are rounded.
fn training(batch: usize, dtype: DType, conv: impl Fn(&Tensor, &Param) -> Tensor) -> f64 {
    let weights = TRAINED.map(|(i, o)| param(&[o, i, 3, 3], Factors::F32));
    for p in &weights {
        p.update(|v| v.iter_mut().for_each(|x| *x *= 0.02));
        p.set_trainable(true);
        p.set_bf16_products(dtype == DType::BF16);
    }
    let x = random(&[batch, 32, 32, 64]);
    let target = Tensor::zeros(&[batch, 32, 32, 256]);
    median_seconds(|| {
        let h = weights.iter().fold(x.clone(), |h, w| conv(&h, w));
        let tokens = h.reshape(&[batch, 32 * 32, 256]);
        let h = add(&tokens, &attention_in(dtype, &tokens, &tokens, &tokens, 4, false)).reshape(target.shape());
        std::hint::black_box(weighted_mse(&h, &target, &vec![1.0; batch]).backward());
    })
}

/// What a 3x3 convolution of the narrow training step does to the size.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    /// Nothing, at the size of the pictures.
    Whole,
    /// Nothing, at half of it.
    Half,
    Down,
    Up,
}

impl Step {
    /// Side of the results for pictures of side `size`.
    fn size(self, size: usize) -> usize {
        if matches!(self, Self::Whole | Self::Up) {
            size
        } else {
            size / 2
        }
    }
}

/// Channels in and out of its convolutions. GroupNorm in four groups and SiLU come before those that keep size and channels, and
/// what these read is added to what they give.
const NARROW: [(usize, usize, Step); 9] = [
    (3, 16, Step::Whole),
    (16, 16, Step::Whole),
    (16, 16, Step::Whole),
    (16, 24, Step::Down),
    (24, 24, Step::Half),
    (24, 24, Step::Half),
    (24, 16, Step::Up),
    (16, 16, Step::Whole),
    (16, 3, Step::Whole),
];

fn narrow_training(batch: usize, dtype: DType) -> f64 {
    let trained = |shape: &[usize], factor: f32, shift: f32| {
        let p = param(shape, Factors::F32);
        p.update(|v| v.iter_mut().for_each(|x| *x = factor * *x + shift));
        p.set_trainable(true);
        p.set_bf16_products(dtype == DType::BF16);
        p
    };
    let layers = NARROW.map(|(i, o, step)| {
        let norm = (i == o).then(|| [trained(&[i], 0.1, 1.0), trained(&[i], 0.1, 0.0)]);
        (trained(&[o, i, 3, 3], 0.1, 0.0), trained(&[o], 0.1, 0.0), norm, step)
    });
    let x = random(&[batch, 128, 128, 3]);
    median_seconds(|| {
        let out = layers.iter().fold(x.clone(), |h, (weight, bias, norm, step)| {
            let read = norm
                .as_ref()
                .map_or(h.clone(), |[gamma, beta]| group_norm(&h, gamma, beta, 4, 1e-6, true));
            let geometry = Conv2d {
                stride: if *step == Step::Down { 2 } else { 1 },
                padding: if *step == Step::Down { [0, 1, 0, 1] } else { [1; 4] },
            };
            if *step == Step::Up {
                return upsample_conv2d(&read, weight, Some(bias));
            }
            let residual = norm.as_ref().map(|_| &h);
            conv2d(&read, weight, Some(bias), geometry, Activation::None, residual)
        });
        std::hint::black_box(weighted_mse(&out, &x, &vec![1.0; batch]).backward());
    })
}

/// Memory-bound: reported as GB/s of reads and writes.
fn bench_group_norm(channels: usize, size: usize) {
    let x = random(&[1, size, size, channels]);
    let (gamma, beta) = (param(&[channels], Factors::F32), param(&[channels], Factors::F32));
    let seconds = median_seconds(|| {
        no_grad(|| group_norm(&x, &gamma, &beta, 32, 1e-5, true));
    });
    let name = format!("group_norm+silu {channels}ch {size}x{size} f32");
    println!("{name:<44} {:>9.1} GB/s", 12.0 * x.numel() as f64 / seconds / 1e9);
}

fn table() {
    let (peak, bf16_peak, int8_peak) = (peak_gflops(), bf16_peak_gflops(), int8_peak_gops());
    println!(
        "kernel {}, {} threads, measured peak {peak:.1} GFLOP/s in f32, {bf16_peak:.1} with factors in bf16, {int8_peak:.1} \
         in int8\n",
        kernel_name(),
        rayon::current_num_threads()
    );
    println!("{:<44} {:>9} {:>10} {:>8}", "op", "GFLOP/s", "of peak", "floor");
    for op in ops() {
        let peak = match op.dtype {
            Factors::F32 => peak,
            Factors::Bf16 => bf16_peak,
            Factors::Int8 => int8_peak,
        };
        let gflops = op.flops() / op.measure() / 1e9;
        let reached = gflops / peak;
        let floor = op.floor.map_or(String::new(), |floor| {
            let below = if reached < floor { "  below" } else { "" };
            format!("{:>6.0} %{below}", 100.0 * floor)
        });
        println!("{:<44} {gflops:>9.1} {:>8.0} % {floor}", op.name(), 100.0 * reached);
    }
    bench_group_norm(320, 64);
}

fn main() -> Result<()> {
    prima_tensor::keep_large_buffers();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ops = ops();
    match args.first().map(String::as_str) {
        None => table(),
        Some("--list") => ops.iter().for_each(|op| println!("{}", op.json())),
        Some("--json") => {
            for number in &args[1..] {
                let op = number.parse().ok().and_then(|n: usize| ops.get(n));
                let op = op.with_context(|| format!("{number}: there are ops 0 to {}", ops.len() - 1))?;
                println!("{}", json!({"seconds": op.measure()}));
            }
        }
        Some(other) => bail!("{other}: the bench takes --list, --json NUMBER... or nothing"),
    }
    Ok(())
}
