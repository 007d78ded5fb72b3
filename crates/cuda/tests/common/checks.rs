//! Every op and its gradients on a device against the CPU's own, on awkward shapes: nothing divides a tile. The emulation test
//! and `test_gpu` run the same checks.

use crate::common::random_tensor;
use prima_tensor::{
    Activation, AdamWStep, Conv2d, DType, Device, Moments, Param, Philox, Tensor, activation, adamw_update, add,
    add_per_sample_channel, add_positions, affine, attention, avg_pool_global, combine_per_sample, concat_channels,
    concat_tokens, conv2d, depthwise_conv2d, ema_update, embedding, gather_rows, geglu, global_norm, group_norm,
    layer_norm, linear, mean_absolute_error, mul, narrow_channels, nchw_to_nhwc, nhwc_to_nchw, no_grad, orthogonalize,
    stack_batch, sub, take_batch, upsample_nearest_2x, weighted_mse, weighted_pseudo_huber, weighted_sum,
};

/// Largest error of f32 and of bf16, relative to the largest value.
const TOLERANCES: [(DType, f32); 2] = [(DType::F32, 2e-5), (DType::BF16, 4e-2)];

/// The nearest values that bf16 holds: neither device then sees a kink of a function from another side.
fn rounded(x: &Tensor) -> Tensor {
    let nearest = |v: &f32| f32::from_bits((v.to_bits() + 0x7fff + ((v.to_bits() >> 16) & 1)) & 0xffff_0000);
    Tensor::from_vec(x.data().iter().map(nearest).collect(), x.shape())
}

/// Opens the device under test with that type of activations; `None` where there is none.
pub type Open<'a> = &'a dyn Fn(DType) -> Option<Device>;

fn trainable(seed: u64, shape: &[usize]) -> Param {
    let param = Param::new(affine(&random_tensor(seed, shape), 0.5, 0.1));
    param.set_trainable(true);
    param
}

/// Output, gradients of the inputs, gradients of the parameters.
fn run(device: &Device, inputs: &[Tensor], params: &[&Param], f: &dyn Fn(&[Tensor]) -> Tensor) -> Vec<Vec<f32>> {
    device.run(|| {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| device.copy(x).requires_grad()).collect();
        let out = f(&leaves);
        let target = random_tensor(0xC0DE, out.shape());
        let weight: Vec<f32> = (0..out.dim(0)).map(|b| 1.0 + b as f32).collect();
        let gradients = weighted_mse(&out, &target, &weight).backward();
        let mut values = vec![out.data().to_vec()];
        for (i, leaf) in leaves.iter().enumerate() {
            let grad = gradients
                .get(leaf)
                .unwrap_or_else(|| panic!("input {i} has no gradient"));
            assert_eq!(grad.shape(), leaf.shape());
            values.push(grad.data().to_vec());
        }
        for (i, param) in params.iter().enumerate() {
            let grad = gradients
                .param(param)
                .unwrap_or_else(|| panic!("parameter {i} has no gradient"));
            assert_eq!(grad.shape(), param.shape());
            values.push(grad.data().to_vec());
        }
        values
    })
}

/// The largest difference, relative to the largest value; it has to be within `tolerance`.
#[track_caller]
fn assert_near(what: &str, got: &[f32], want: &[f32], tolerance: f32) -> f32 {
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    let mut largest = 0.0f32;
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        let error = (a - b).abs() / scale;
        assert!(
            error <= tolerance,
            "{what}: value {i} is {a}, the CPU's {b} (largest {scale})"
        );
        largest = largest.max(error);
    }
    largest
}

#[track_caller]
fn check(open: Open, op: &str, inputs: &[Tensor], params: &[&Param], f: &dyn Fn(&[Tensor]) -> Tensor) {
    let inputs: Vec<Tensor> = inputs.iter().map(rounded).collect();
    let want = run(&Device::cpu(), &inputs, params, f);
    for (dtype, tolerance) in TOLERANCES {
        let Some(device) = open(dtype) else { return };
        let got = run(&device, &inputs, params, f);
        let mut errors = vec![];
        for (part, (got, want)) in got.iter().zip(&want).enumerate() {
            errors.push(assert_near(
                &format!("{op} in {dtype:?}, part {part}"),
                got,
                want,
                tolerance,
            ));
        }
        let gradients = errors[1..].iter().fold(0.0f32, |m, e| m.max(*e));
        println!("  {op}, {dtype:?}: output {:.1e}, gradients {gradients:.1e}", errors[0]);
    }
}

/// Pointwise ops and their gradients.
pub fn pointwise(open: Open) {
    let [a, b] = [1, 2].map(|seed| random_tensor(seed, &[3, 5, 7]));
    let both = [a.clone(), b.clone()];
    check(open, "add", &both, &[], &|x| add(&x[0], &x[1]));
    check(open, "sub", &both, &[], &|x| sub(&x[0], &x[1]));
    check(open, "mul", &both, &[], &|x| mul(&x[0], &x[1]));
    check(open, "a tensor used twice", &both[..1], &[], &|x| {
        add(&x[0], &mul(&x[0], &x[0]))
    });
    check(open, "affine", &both[..1], &[], &|x| affine(&x[0], -1.5, 0.25));
    let (factors, others) = ([0.5, -1.0, 2.0], [1.0, 0.0, -0.5]);
    check(open, "combine_per_sample", &both, &[], &|x| {
        combine_per_sample(&factors, &x[0], &others, &x[1])
    });
    let v = random_tensor(3, &[3, 7]);
    check(open, "add_per_sample_channel", &[a, v], &[], &|x| {
        add_per_sample_channel(&x[0], &x[1])
    });
    let long = random_tensor(4, &[2, 5003]);
    for kind in [
        Activation::Relu,
        Activation::Relu6,
        Activation::Silu,
        Activation::Gelu,
        Activation::QuickGelu,
        Activation::Tanh,
        Activation::Softplus,
    ] {
        check(open, &format!("{kind:?}"), &[affine(&long, 3.0, 0.0)], &[], &|x| {
            activation(&x[0], kind)
        });
    }
    check(open, "geglu", &[random_tensor(5, &[2, 3, 26])], &[], &|x| geglu(&x[0]));
}

/// Losses and their gradients.
pub fn losses(open: Open) {
    let x = random_tensor(1, &[3, 701]);
    let target = rounded(&random_tensor(2, &[3, 701]));
    let weight = [0.5, 2.0, 1.0];
    let total = |loss: Tensor| loss.reshape(&[1]);
    let inputs = [x];
    check(open, "weighted_mse", &inputs, &[], &|x| {
        total(weighted_mse(&x[0], &target, &weight))
    });
    check(open, "pseudo_huber", &inputs, &[], &|x| {
        total(weighted_pseudo_huber(&x[0], &target, &weight, 0.1))
    });
    check(open, "absolute", &inputs, &[], &|x| {
        total(mean_absolute_error(&x[0], &target))
    });
}

/// Norms and their gradients.
pub fn norms(open: Open) {
    for (shape, groups) in [([2, 7, 5, 24], 3), ([1, 40, 33, 8], 8), ([3, 1, 1, 66], 2)] {
        let x = affine(&random_tensor(1, &shape), 2.0, 5.0);
        let (gamma, beta) = (trainable(2, &shape[3..]), trainable(3, &shape[3..]));
        for silu in [false, true] {
            check(
                open,
                &format!("group_norm {shape:?} silu {silu}"),
                std::slice::from_ref(&x),
                &[&gamma, &beta],
                &|x| group_norm(&x[0], &gamma, &beta, groups, 1e-5, silu),
            );
        }
        check(open, &format!("layer_norm {shape:?}"), &[x], &[&gamma, &beta], &|x| {
            layer_norm(&x[0], &gamma, &beta, 1e-5)
        });
    }
}

/// Layout ops and their gradients.
pub fn layout(open: Open) {
    let (a, b) = (random_tensor(1, &[2, 3, 5, 7]), random_tensor(2, &[2, 3, 5, 4]));
    check(open, "concat_channels", &[a.clone(), b], &[], &|x| {
        concat_channels(&[&x[0], &x[1]])
    });
    let tokens = [random_tensor(1, &[2, 3, 6]), random_tensor(2, &[2, 5, 6])];
    check(open, "concat_tokens", &tokens, &[], &|x| concat_tokens(&[&x[0], &x[1]]));
    check(
        open,
        "stack_batch",
        &[random_tensor(3, &[1, 6]), random_tensor(4, &[4, 6])],
        &[],
        &|x| stack_batch(&[&x[0], &x[1]]),
    );
    check(open, "narrow_channels", std::slice::from_ref(&a), &[], &|x| {
        narrow_channels(&x[0], 2, 3)
    });
    check(open, "take_batch", std::slice::from_ref(&a), &[], &|x| {
        take_batch(&x[0], 1, 1)
    });
    check(open, "nchw_to_nhwc", &[random_tensor(5, &[2, 37, 7, 11])], &[], &|x| {
        nchw_to_nhwc(&x[0])
    });
    check(open, "nhwc_to_nchw", &[random_tensor(5, &[2, 7, 11, 37])], &[], &|x| {
        nhwc_to_nchw(&x[0])
    });
    check(open, "upsample", std::slice::from_ref(&a), &[], &|x| {
        upsample_nearest_2x(&x[0])
    });
    check(open, "avg_pool", &[a], &[], &|x| avg_pool_global(&x[0]));
    let (table, positions) = (trainable(6, &[11, 9]), trainable(7, &[8, 9]));
    let ids = [3, 10, 3, 0, 3, 7];
    check(open, "embedding", &[], &[&table], &|_| embedding(&table, &ids, 2));
    check(
        open,
        "add_positions",
        &[random_tensor(8, &[2, 5, 9])],
        &[&positions],
        &|x| add_positions(&x[0], &positions),
    );
    check(open, "gather_rows", &[random_tensor(8, &[2, 5, 9])], &[], &|x| {
        gather_rows(&x[0], &[4, 1])
    });
}

/// Linear layers and their gradients.
pub fn linear_layers(open: Open) {
    for (m, n, k) in [(1, 1, 1), (70, 67, 33), (5, 130, 64)] {
        let (x, residual) = (random_tensor(1, &[1, m, k]), random_tensor(2, &[1, m, n]));
        let (weight, bias) = (trainable(3, &[n, k]), trainable(4, &[n]));
        let name = format!("linear {m} {n} {k}");
        check(open, &name, &[x.clone(), residual], &[&weight, &bias], &|x| {
            linear(&x[0], &weight, Some(&bias), Activation::Silu, Some(&x[1]))
        });
        check(open, &name, &[x], &[&weight], &|x| {
            linear(&x[0], &weight, None, Activation::None, None)
        });
    }
}

/// Products with each epilogue that a library may fuse, and each that it may not.
pub fn epilogues(open: Open) {
    let x = rounded(&random_tensor(1, &[1, 21, 13]));
    let residual = rounded(&random_tensor(2, &[1, 21, 10]));
    let (weight, bias) = (
        Param::new(rounded(&random_tensor(3, &[10, 13]))),
        Param::new(rounded(&random_tensor(4, &[10]))),
    );
    for act in [Activation::None, Activation::Relu, Activation::Gelu, Activation::Silu] {
        for (bias, residual) in [
            (None, None),
            (Some(&bias), None),
            (None, Some(&residual)),
            (Some(&bias), Some(&residual)),
        ] {
            let run = || no_grad(|| linear(&x, &weight, bias, act, residual).data().to_vec());
            let want = run();
            for (dtype, tolerance) in TOLERANCES {
                let Some(device) = open(dtype) else { return };
                let name = format!("{act:?} bias {} residual {}", bias.is_some(), residual.is_some());
                assert_near(&format!("{name} in {dtype:?}"), &device.run(run), &want, tolerance);
            }
        }
    }
}

/// Convolutions and their gradients.
pub fn convolutions(open: Open) {
    let cases = [
        ([2, 7, 9, 5], [6, 5, 3, 3], Conv2d::padded(1)),
        ([1, 8, 8, 3], [70, 3, 3, 3], Conv2d::strided(2, 1)),
        (
            [1, 6, 7, 4],
            [3, 4, 3, 3],
            Conv2d {
                stride: 2,
                padding: [0, 1, 0, 1],
            },
        ),
        ([2, 5, 4, 66], [7, 66, 1, 1], Conv2d::padded(0)),
        ([1, 8, 8, 2], [4, 2, 2, 2], Conv2d::strided(2, 0)),
    ];
    for (shape, weight_shape, geometry) in cases {
        let x = random_tensor(1, &shape);
        let (weight, bias) = (trainable(2, &weight_shape), trainable(3, &weight_shape[..1]));
        let name = format!("conv2d {shape:?} {weight_shape:?} {geometry:?}");
        let plain = no_grad(|| conv2d(&x, &weight, None, geometry, Activation::None, None));
        let residual = random_tensor(4, plain.shape());
        check(open, &name, &[x, residual], &[&weight, &bias], &|x| {
            conv2d(&x[0], &weight, Some(&bias), geometry, Activation::Silu, Some(&x[1]))
        });
    }
}

/// Fused epilogues and inference only ops.
pub fn fused_and_inference_only(open: Open) {
    let x = random_tensor(1, &[2, 6, 5, 9]);
    let (weight, bias) = (
        Param::new(random_tensor(2, &[4, 9, 3, 3])),
        Param::new(random_tensor(3, &[4])),
    );
    let filters = Param::new(random_tensor(5, &[9, 1, 3, 3]));
    let residual = random_tensor(4, &[2, 6, 5, 4]);
    let run = || {
        no_grad(|| {
            let conv = conv2d(
                &x,
                &weight,
                Some(&bias),
                Conv2d::padded(1),
                Activation::Gelu,
                Some(&residual),
            );
            let deep = depthwise_conv2d(&x, &filters, None, Conv2d::strided(2, 1), Activation::Relu6);
            let step = weighted_sum(&[(0.5, &x), (-2.0, &x), (0.0, &x), (0.25, &x)]);
            [conv, deep, step].map(|t| t.data().to_vec())
        })
    };
    let want = run();
    for (dtype, tolerance) in TOLERANCES {
        let Some(device) = open(dtype) else { return };
        for (got, want) in device.run(run).iter().zip(&want) {
            assert_near(&format!("{dtype:?}"), got, want, tolerance);
        }
    }
}

/// Filters of one channel each, and the gradient of what they filter.
pub fn depthwise(open: Open) {
    let x = random_tensor(1, &[2, 7, 6, 9]);
    let filters = Param::new(random_tensor(2, &[9, 1, 5, 5]));
    for (name, geometry) in [
        ("depthwise", Conv2d::padded(2)),
        ("depthwise, stride 2", Conv2d::strided(2, 1)),
    ] {
        check(open, name, std::slice::from_ref(&x), &[], &|x| {
            depthwise_conv2d(&x[0], &filters, None, geometry, Activation::Relu6)
        });
    }
}

/// Attention and its gradients.
pub fn attentions(open: Open) {
    // Queries, keys, heads, values of a head, causal.
    let cases = [
        (37, 37, 3, 8, true),
        (5, 77, 2, 40, false),
        (70, 33, 1, 64, false),
        (33, 20, 2, 100, false),
        (19, 19, 1, 100, true),
        (18, 21, 1, 200, false),
        (17, 17, 1, 512, false),
    ];
    for (queries, keys, heads, dim, causal) in cases {
        let q = random_tensor(1, &[2, queries, heads * dim]);
        let [k, v] = [2, 3].map(|seed| random_tensor(seed, &[2, keys, heads * dim]));
        check(
            open,
            &format!("attention {queries} {keys} {heads} {dim} {causal}"),
            &[q, k, v],
            &[],
            &|x| attention(&x[0], &x[1], &x[2], heads, causal),
        );
    }
}

/// `softmax(q kᵀ / sqrt(dim)) v` in f64; shapes as in `attention`.
fn attention_f64(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Vec<f32> {
    let (batch, queries, keys, width) = (q.dim(0), q.dim(1), k.dim(1), q.dim(2));
    let dim = width / heads;
    let at = |t: &Tensor, b: usize, row: usize, head: usize, d: usize| {
        f64::from(t.data()[(b * t.dim(1) + row) * width + head * dim + d])
    };
    let mut out = vec![0.0; q.numel()];
    for (b, head) in (0..batch).flat_map(|b| (0..heads).map(move |head| (b, head))) {
        for i in 0..queries {
            let seen = if causal { keys.min(i + 1) } else { keys };
            let scores: Vec<f64> = (0..seen)
                .map(|j| {
                    (0..dim)
                        .map(|d| at(q, b, i, head, d) * at(k, b, j, head, d))
                        .sum::<f64>()
                        / (dim as f64).sqrt()
                })
                .collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            for d in 0..dim {
                let sum: f64 = weights.iter().enumerate().map(|(j, w)| w * at(v, b, j, head, d)).sum();
                out[(b * queries + i) * width + head * dim + d] = (sum / total) as f32;
            }
        }
    }
    out
}

/// Attention in bf16, which tensor cores compute, against f64 on shapes that fill no tile: the error is that of rounding the
/// probabilities and the result.
pub fn attention_on_tensor_cores(open: Open) {
    let Some(device) = open(DType::BF16) else { return };
    // Queries, keys, heads, values of a head, causal.
    let cases = [
        (1, 1, 1, 8, false),
        (65, 77, 2, 64, false),
        (130, 200, 1, 64, false),
        (130, 130, 1, 64, true),
        (33, 65, 2, 24, false),
        (17, 129, 3, 40, false),
        (20, 33, 2, 37, false),
        (70, 70, 1, 96, true),
        (19, 90, 1, 128, false),
        (70, 70, 1, 160, true),
        (21, 37, 2, 200, true),
        (37, 50, 1, 512, false),
    ];
    for (queries, keys, heads, dim, causal) in cases {
        let q = rounded(&affine(&random_tensor(1, &[2, queries, heads * dim]), 2.0, 0.0));
        let [k, v] = [2, 3].map(|seed| rounded(&random_tensor(seed, &[2, keys, heads * dim])));
        let want = attention_f64(&q, &k, &v, heads, causal);
        let got = device.run(|| {
            let [q, k, v] = [&q, &k, &v].map(|t| device.copy(t));
            no_grad(|| attention(&q, &k, &v, heads, causal).data().to_vec())
        });
        let name = format!("attention in bf16 {queries} {keys} {heads} {dim} {causal}");
        let error = assert_near(&name, &got, &want, 6e-3);
        println!("  {name}: {error:.1e}");
    }
}

/// Pictures' bytes are the CPU's.
pub fn picture_bytes(open: Open) {
    let x = affine(&random_tensor(1, &[1, 7, 5, 3]), 0.8, 0.0);
    for (dtype, _) in TOLERANCES {
        let Some(device) = open(dtype) else { return };
        // Stored in f32 in either case: halves of a byte would round to other sides.
        let got = device.run(|| prima_tensor::picture_bytes(&device.copy(&x)));
        assert_eq!(got, prima_tensor::picture_bytes(&x), "{dtype:?}");
    }
}

/// Noise is the cpus to the bit.
pub fn noise(open: Open) {
    let Some(device) = open(DType::BF16) else {
        return;
    };
    for (seed, shape) in [(0, [1, 1000, 1]), (0xDEAD_BEEF_1234_5678, [3, 37, 11]), (7, [2, 1, 3])] {
        let noise = Philox {
            seed,
            image: 5,
            purpose: 1,
            step: 3,
        };
        let want = noise.normal_batch(&shape);
        let got = device.run(|| noise.normal_batch(&shape));
        let bits = |t: &Tensor| t.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(&want), "seed {seed:#x}");
    }
}

/// Ten steps of plain gradient descent on a little network with a norm, a convolution, attention and a linear layer.
fn ten_losses() -> Vec<f32> {
    let params = [
        trainable(1, &[8]),
        trainable(2, &[8]),
        trainable(3, &[8, 8, 3, 3]),
        trainable(4, &[8, 8]),
        trainable(5, &[8]),
    ];
    let [gamma, beta, filters, weight, bias] = &params;
    let x = random_tensor(6, &[2, 5, 6, 8]);
    let target = random_tensor(7, &[2, 30, 8]);
    let step = |_| {
        let hidden = group_norm(&x, gamma, beta, 2, 1e-5, true);
        let hidden = conv2d(&hidden, filters, None, Conv2d::padded(1), Activation::None, Some(&x));
        let tokens = hidden.reshape(&[2, 30, 8]);
        let mixed = attention(&tokens, &tokens, &tokens, 2, false);
        let out = linear(&mixed, weight, Some(bias), Activation::Silu, Some(&tokens));
        let loss = weighted_mse(&out, &target, &[1.0, 1.0]);
        let gradients = loss.backward();
        for param in &params {
            let grad = gradients.param(param).unwrap();
            param.update(|values| values.iter_mut().zip(grad.data()).for_each(|(v, g)| *v -= 0.1 * g));
        }
        loss.item()
    };
    (0..10).map(step).collect()
}

/// AdamW, averages, the global norm, and sums of gradients.
pub fn optimizer_steps(open: Open) {
    let shape = [7, 331];
    let run = |device: &Device| {
        device.run(|| {
            let param = Param::new(random_tensor(1, &shape));
            let mut moments = Moments::zeros(&shape);
            let mut average = param.tensor();
            let mut norms = vec![];
            for t in 1..4 {
                let gradients = [10 * t, 10 * t + 1].map(|seed| affine(&random_tensor(seed, &shape), 0.01, 0.0));
                let step = AdamWStep {
                    beta1: 0.9,
                    beta2: 0.99,
                    epsilon: 1e-8,
                    grad_scale: 0.5,
                    step_size: 0.02,
                    inv_sqrt_correction2: 1.5,
                    keep: 0.99,
                };
                norms.push(global_norm(&gradients.each_ref()));
                adamw_update(&param, &gradients[0], &mut moments, &step);
                ema_update(&mut average, &param.tensor(), 0.7);
            }
            norms.push(global_norm(&[]));
            let values = [param.tensor(), moments.exp_avg, moments.exp_avg_sq, average];
            let mut parts: Vec<Vec<f32>> = values.iter().map(|t| t.data().to_vec()).collect();
            parts.push(norms);
            parts
        })
    };
    let want = run(&Device::cpu());
    // The same in f32 and in bf16: what is trained is f32 in either case.
    for dtype in [DType::F32, DType::BF16] {
        let Some(device) = open(dtype) else { return };
        for (part, (got, want)) in run(&device).iter().zip(&want).enumerate() {
            assert_near(&format!("optimizer in {dtype:?}, part {part}"), got, want, 1e-6);
        }
    }
}

/// A matrix made orthogonal, wide and tall.
pub fn orthogonalized(open: Open) {
    for (rows, columns) in [(24, 70), (50, 16)] {
        let x = random_tensor(3, &[rows, columns]);
        let run = |device: &Device| device.run(|| orthogonalize(&device.copy(&x), 5, DType::F32).data().to_vec());
        let want = run(&Device::cpu());
        // Each of five steps multiplies what is small, and its error, by 3.4.
        for (dtype, tolerance) in [(DType::F32, 5e-4), (DType::BF16, 8e-2)] {
            let Some(device) = open(dtype) else { return };
            let name = format!("orthogonalize {rows}x{columns} in {dtype:?}");
            assert_near(&name, &run(&device), &want, tolerance);
        }
    }
}

/// Means of gradients over batches, and buckets of them.
pub fn gradient_sums(open: Open) {
    let shapes: [&[usize]; 4] = [&[5, 3], &[1], &[70], &[2, 2, 3]];
    let run = |device: &Device| {
        device.run(|| {
            let params: Vec<Param> = shapes.iter().map(|shape| trainable(1, shape)).collect();
            let unreached = trainable(2, &[4]);
            let batch = |seed: u64| {
                let loss = |(i, param): (usize, &Param)| {
                    let x = param.tensor().reshape(&[1, param.numel()]);
                    weighted_mse(&x, &random_tensor(seed + i as u64, &[1, param.numel()]), &[1.0])
                };
                let losses: Vec<Tensor> = params.iter().enumerate().map(loss).collect();
                losses[1..]
                    .iter()
                    .fold(losses[0].clone(), |sum, loss| add(&sum, loss))
                    .backward()
            };
            let mut sum = batch(10);
            sum.add(batch(20));
            sum.add(batch(30));
            sum.scale(1.0 / 3.0);
            let mut all: Vec<&Param> = params.iter().collect();
            all.insert(2, &unreached);
            let mut lengths = vec![];
            let doubled = sum.in_buckets(&all, 20, |bucket| {
                lengths.push(bucket.numel());
                Ok::<_, ()>(add(&bucket, &bucket))
            });
            doubled.unwrap();
            // 15 and 1 fit into 20, 70 does not, and is a bucket of its own.
            assert_eq!(lengths, [16, 70, 12]);
            assert!(sum.param(&unreached).is_none());
            let gradients = params.iter().map(|param| sum.param(param).unwrap());
            gradients
                .map(|gradient| (gradient.shape().to_vec(), gradient.data().to_vec()))
                .collect::<Vec<_>>()
        })
    };
    let want = run(&Device::cpu());
    assert!(want.iter().map(|(shape, _)| shape.as_slice()).eq(shapes));
    for dtype in [DType::F32, DType::BF16] {
        let Some(device) = open(dtype) else { return };
        for ((_, got), (_, want)) in run(&device).iter().zip(&want) {
            let tolerance = if dtype == DType::F32 { 1e-6 } else { 4e-2 };
            assert_near(&format!("gradients in {dtype:?}"), got, want, tolerance);
        }
    }
}

/// Ten training losses follow the cpus.
pub fn training(open: Open) {
    let want = ten_losses();
    assert!(want[9] < 0.8 * want[0], "the loss falls: {want:?}");
    for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::BF16, 2e-2)] {
        let Some(device) = open(dtype) else { return };
        let got = device.run(ten_losses);
        for (step, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!(
                (got / want - 1.0).abs() < tolerance,
                "{dtype:?}, step {step}: {got}, the CPU's {want}"
            );
        }
    }
}
