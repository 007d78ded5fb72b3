//! Linear, convolution and attention against plain f64 loops, forward and gradients,
//! on shapes that fit no register block.

mod common;
use common::{assert_close, check_gradients, random_tensor};
use prima_tensor::{
    Activation, Conv2d, DType, FormKind, Keep, Param, Tensor, add, attention, conv2d, linear, mul, take_batch,
    upsample_conv2d, upsample_nearest_2x,
};

/// `[rows, inner] x [cols, inner]` in f64.
fn plain_linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Vec<f32> {
    let (n, k) = (w.dim(0), w.dim(1));
    x.data()
        .chunks_exact(k)
        .flat_map(|row| {
            (0..n).map(move |j| {
                let dot: f64 = row
                    .iter()
                    .zip(&w.data()[j * k..])
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                (dot + bias.map_or(0.0, |b| f64::from(b.data()[j]))) as f32
            })
        })
        .collect()
}

#[test]
fn linear_matches_plain_loops_on_awkward_shapes() {
    for (m, k, n) in [(1, 1, 1), (7, 5, 17), (97, 401, 33), (200, 800, 16), (13, 64, 129)] {
        let x = random_tensor(1, &[m, k]);
        let w = random_tensor(2, &[n, k]);
        let b = random_tensor(3, &[n]);
        let residual = random_tensor(4, &[m, n]);
        let got = linear(
            &x,
            &Param::new(w.clone()),
            Some(&Param::new(b.clone())),
            Activation::Relu,
            Some(&residual),
        );
        let want: Vec<f32> = plain_linear(&x, &w, Some(&b))
            .iter()
            .zip(residual.data())
            .map(|(y, r)| y.max(0.0) + r)
            .collect();
        assert_close(&got, &Tensor::from_vec(want, &[m, n]), 1e-5);
    }
}

/// Values that bf16 holds exactly: the products are then exact and only the order of the sum is the engine's.
fn bf16_tensor(seed: u64, shape: &[usize]) -> Tensor {
    let values = random_tensor(seed, shape)
        .data()
        .iter()
        .map(|x| half::bf16::from_f32(*x).to_f32())
        .collect();
    Tensor::from_vec(values, shape)
}

fn narrow(t: &Tensor) -> Param {
    let param = Param::new(t.clone());
    param.narrow_to_bf16();
    assert_eq!(param.dtype(), prima_tensor::DType::BF16);
    param
}

#[test]
fn bf16_weights_multiply_bf16_values_and_sum_in_f32() {
    for (m, k, n) in [(1, 1, 1), (7, 5, 17), (97, 401, 33), (30, 769, 40)] {
        let (x, w) = (bf16_tensor(1, &[m, k]), bf16_tensor(2, &[n, k]));
        let got = linear(&x, &narrow(&w), None, Activation::None, None);
        assert_close(&got, &Tensor::from_vec(plain_linear(&x, &w, None), &[m, n]), 1e-5);
    }
    let (x, w) = (bf16_tensor(5, &[2, 7, 5, 3]), bf16_tensor(6, &[19, 3, 3, 3]));
    let run = |w: &Param| conv2d(&x, w, None, Conv2d::padded(1), Activation::None, None);
    assert_close(&run(&narrow(&w)), &run(&Param::new(w.clone())), 1e-5);
}

/// Output and gradients of x and w for a loss whose gradient at the output is `g`.
fn trained(x: &Tensor, w: &Tensor, g: &Tensor, bf16: bool, f: impl Fn(&Tensor, &Param) -> Tensor) -> [Tensor; 3] {
    let (x, w) = (x.requires_grad(), as_param(w));
    w.set_bf16_products(bf16);
    let out = f(&x, &w);
    let gradients = common::total(&out, g).backward();
    let grad_x = gradients.get(&x).unwrap().clone();
    [out.detach(), grad_x, gradients.param(&w).unwrap().clone()]
}

/// Of values that bf16 holds, the products are the same in both; of others they are as far apart as the rounding.
#[test]
fn training_with_bf16_products_rounds_factors_and_nothing_else() {
    let linear_of = |x: &Tensor, w: &Param| linear(x, w, None, Activation::None, None);
    let conv =
        |stride| move |x: &Tensor, w: &Param| conv2d(x, w, None, Conv2d::strided(stride, 1), Activation::None, None);
    type Case<'a> = (
        &'a [usize],
        &'a [usize],
        &'a [usize],
        Box<dyn Fn(&Tensor, &Param) -> Tensor>,
    );
    let cases: [Case; 4] = [
        (&[33, 70], &[50, 70], &[33, 50], Box::new(linear_of)),
        (&[2, 7, 5, 6], &[18, 6, 3, 3], &[2, 7, 5, 18], Box::new(conv(1))),
        (&[2, 7, 5, 3], &[5, 3, 3, 3], &[2, 7, 5, 5], Box::new(conv(1))),
        (&[1, 8, 8, 6], &[10, 6, 3, 3], &[1, 4, 4, 10], Box::new(conv(2))),
    ];
    for (x, w, g, f) in &cases {
        let [x, w, g] = [bf16_tensor(1, x), bf16_tensor(2, w), bf16_tensor(3, g)];
        let pairs = trained(&x, &w, &g, true, f)
            .into_iter()
            .zip(trained(&x, &w, &g, false, f));
        pairs.for_each(|(narrow, wide)| assert_close(&narrow, &wide, 1e-5));
        let [x, w, g] = [&x, &w, &g].map(|t| random_tensor(7, t.shape()));
        let pairs = trained(&x, &w, &g, true, f)
            .into_iter()
            .zip(trained(&x, &w, &g, false, f));
        pairs.for_each(|(narrow, wide)| assert_close(&narrow, &wide, 2e-2));
    }
}

/// Of an even picture the gradient of a convolution of stride 2 is four convolutions, of an odd one a product: the weight is
/// packed for each.
#[test]
fn one_weight_passes_gradients_to_pictures_of_even_and_odd_sizes() {
    let w = as_param(&random_tensor(2, &[10, 6, 3, 3]));
    let run = |w: &Param, size: [usize; 2]| {
        let x = random_tensor(1, &[2, size[0], size[1], 6]).requires_grad();
        let out = conv2d(&x, w, None, Conv2d::strided(2, 1), Activation::None, None);
        let g = random_tensor(3, out.shape());
        common::total(&out, &g).backward().get(&x).unwrap().clone()
    };
    for bf16 in [false, true] {
        w.set_bf16_products(bf16);
        for size in [[8, 8], [7, 10], [13, 20], [16, 16], [8, 9]] {
            let fresh = as_param(&w.tensor());
            fresh.set_bf16_products(bf16);
            assert_close(&run(&w, size), &run(&fresh, size), 0.0);
        }
    }
}

#[test]
fn attention_trains_with_bf16_products() {
    let [q, k, v, g] = [1, 2, 3, 4].map(|seed| random_tensor(seed, &[2, 40, 32]));
    let run = |dtype| {
        let [q, k, v] = [&q, &k, &v].map(Tensor::requires_grad);
        let out = prima_tensor::attention_in(dtype, &q, &k, &v, 2, false);
        let gradients = common::total(&out, &g).backward();
        [&q, &k, &v].map(|leaf| gradients.get(leaf).unwrap().clone())
    };
    let pairs = run(prima_tensor::DType::BF16)
        .into_iter()
        .zip(run(prima_tensor::DType::F32));
    pairs.for_each(|(narrow, wide)| assert_close(&narrow, &wide, 2e-2));
}

#[test]
fn a_narrow_parameter_rounds_its_value_and_takes_a_new_one_in_f32() {
    let param = narrow(&Tensor::from_vec(vec![1.0 + 1e-4, -2.5], &[1, 2]));
    assert_eq!(
        (param.shape(), param.numel(), param.tensor().data()),
        (vec![1, 2], 2, &[1.0f32, -2.5][..])
    );
    param.update(|values| values[0] += 1e-4);
    assert_eq!(
        (param.dtype(), param.tensor().data()[0]),
        (prima_tensor::DType::F32, 1.0 + 1e-4)
    );
}

/// A parameter whose value takes part in a gradient check as an ordinary input.
fn as_param(t: &Tensor) -> Param {
    let p = Param::new(t.clone());
    p.set_trainable(true);
    p
}

/// Analytic parameter gradients against central differences of `loss(param value)`.
fn check_param_gradient(value: &Tensor, f: impl Fn(&Param) -> Tensor) {
    let param = as_param(value);
    let out = f(&param);
    let weights = random_tensor(99, out.shape());
    let loss = |p: &Param| -> f64 {
        f(p).data()
            .iter()
            .zip(weights.data())
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let product = mul(&out, &weights);
    // sum = mean · count, through the loss op that exists.
    let total = linear(
        &product.reshape(&[1, product.numel()]),
        &Param::new(Tensor::full(1.0, &[1, product.numel()])),
        None,
        Activation::None,
        None,
    );
    let grads = total.backward();
    let grad = grads.param(&param).expect("the parameter has a gradient");
    let scale = grad.data().iter().fold(0.0f32, |m, x| m.max(x.abs()));
    for i in (0..value.numel()).step_by((value.numel() / 23).max(1)) {
        let step = 1e-2f32;
        let moved = |d: f32| {
            let mut v = value.data().to_vec();
            v[i] += d;
            loss(&Param::new(Tensor::from_vec(v, value.shape())))
        };
        let numeric = ((moved(step) - moved(-step)) / (2.0 * f64::from(step))) as f32;
        assert!(
            (numeric - grad.data()[i]).abs() < 2e-3 * scale.max(1.0),
            "{i}: {numeric} against {}",
            grad.data()[i]
        );
    }
}

#[test]
fn linear_gradients_match_finite_differences() {
    let (x, w, b) = (
        random_tensor(5, &[3, 7, 11]),
        random_tensor(6, &[19, 11]),
        random_tensor(7, &[19]),
    );
    check_gradients(
        std::slice::from_ref(&x),
        |t| linear(&t[0], &Param::new(w.clone()), None, Activation::Silu, None),
        2e-3,
    );
    check_param_gradient(&w, |p| linear(&x, p, None, Activation::None, None));
    check_param_gradient(&b, |p| {
        linear(&x, &Param::new(w.clone()), Some(p), Activation::None, None)
    });
}

/// Convolution by its definition, in f64, on channels-last pictures.
fn plain_conv(x: &Tensor, w: &Tensor, g: Conv2d) -> Tensor {
    let [bs, h, wd, ci] = [x.dim(0), x.dim(1), x.dim(2), x.dim(3)];
    let [co, _, kh, kw] = [w.dim(0), w.dim(1), w.dim(2), w.dim(3)];
    let [top, bottom, left, right] = g.padding;
    let oh = (h + top + bottom - kh) / g.stride + 1;
    let ow = (wd + left + right - kw) / g.stride + 1;
    let mut out = Vec::with_capacity(bs * oh * ow * co);
    for (b, oy, ox, o) in itertools(bs, oh, ow, co) {
        let mut sum = 0.0f64;
        for (ky, kx, i, _) in itertools(kh, kw, ci, 1) {
            let (y, xx) = (
                (oy * g.stride + ky) as isize - top as isize,
                (ox * g.stride + kx) as isize - left as isize,
            );
            if y >= 0 && xx >= 0 && (y as usize) < h && (xx as usize) < wd {
                let at = ((b * h + y as usize) * wd + xx as usize) * ci + i;
                sum += f64::from(x.data()[at]) * f64::from(w.data()[((o * ci + i) * kh + ky) * kw + kx]);
            }
        }
        out.push(sum as f32);
    }
    Tensor::from_vec(out, &[bs, oh, ow, co])
}

fn itertools(a: usize, b: usize, c: usize, d: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * c * d).map(move |i| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d))
}

fn conv_cases() -> Vec<([usize; 4], [usize; 4], Conv2d)> {
    vec![
        ([2, 5, 7, 3], [17, 3, 3, 3], Conv2d::padded(1)),
        ([1, 6, 6, 33], [5, 33, 3, 3], Conv2d::strided(2, 1)),
        ([3, 5, 4, 7], [9, 7, 1, 1], Conv2d::padded(0)),
        (
            [1, 6, 8, 4],
            [8, 4, 3, 3],
            Conv2d {
                stride: 2,
                padding: [0, 1, 0, 1],
            },
        ),
        ([1, 1, 1, 1], [1, 1, 3, 3], Conv2d::padded(1)),
        ([2, 3, 3, 50], [20, 50, 3, 3], Conv2d::padded(1)),
        ([1, 5, 5, 2], [3, 2, 1, 1], Conv2d::strided(2, 0)),
        ([2, 4, 7, 3], [18, 3, 5, 5], Conv2d::padded(2)),
        (
            [1, 4, 9, 5],
            [7, 5, 1, 3],
            Conv2d {
                stride: 1,
                padding: [0, 0, 1, 1],
            },
        ),
    ]
}

#[test]
fn conv2d_matches_plain_loops_on_awkward_shapes() {
    for (xs, ws, geometry) in conv_cases() {
        let (x, w) = (random_tensor(8, &xs), random_tensor(9, &ws));
        let got = conv2d(&x, &Param::new(w.clone()), None, geometry, Activation::None, None);
        assert_close(&got, &plain_conv(&x, &w, geometry), 1e-5);
    }
}

#[test]
fn a_convolution_in_several_bands_ends_with_bias_activation_and_residual() {
    let (x, w) = (random_tensor(12, &[2, 25, 60, 40]), random_tensor(13, &[18, 40, 3, 3]));
    let (bias, residual) = (random_tensor(14, &[18]), random_tensor(15, &[2, 25, 60, 18]));
    let geometry = Conv2d::padded(1);
    let got = conv2d(
        &x,
        &Param::new(w.clone()),
        Some(&Param::new(bias.clone())),
        geometry,
        Activation::Relu,
        Some(&residual),
    );
    let plain = plain_conv(&x, &w, geometry);
    let values = plain.data().iter().zip(residual.data()).enumerate();
    let expected = values.map(|(i, (y, r))| (y + bias.data()[i % 18]).max(0.0) + r);
    assert_close(&got, &Tensor::from_vec(expected.collect(), got.shape()), 1e-5);
}

/// Tiles then hold rows of several samples.
#[test]
fn many_small_pictures_are_convolved_as_each_alone() {
    let (batch, channels, outputs) = (19, 34, 50);
    for (height, width) in [(4, 4), (2, 8), (16, 16), (3, 5), (1, 1), (4, 6), (7, 12)] {
        for (kernel, geometry) in [
            (3, Conv2d::padded(1)),
            (
                1,
                Conv2d {
                    stride: 2,
                    padding: [0; 4],
                },
            ),
            (
                3,
                Conv2d {
                    stride: 2,
                    padding: [1; 4],
                },
            ),
            (
                4,
                Conv2d {
                    stride: 1,
                    padding: [2, 1, 2, 1],
                },
            ),
        ] {
            let x = random_tensor(1, &[batch, height, width, channels]);
            let residual = |shape: &[usize]| random_tensor(5, shape);
            let weight = random_tensor(2, &[outputs, channels, kernel, kernel]);
            let bias = Param::new(random_tensor(3, &[outputs]));
            for weight in [Param::new(weight.clone()), narrow(&weight)] {
                let together = conv2d(&x, &weight, Some(&bias), geometry, Activation::Silu, None);
                let residual = residual(together.shape());
                let with_residual = conv2d(&x, &weight, Some(&bias), geometry, Activation::Silu, Some(&residual));
                let doubled = (kernel == 3).then(|| upsample_conv2d(&x, &weight, Some(&bias)));
                for b in 0..batch {
                    let alone = take_batch(&x, b, 1);
                    let conv = conv2d(&alone, &weight, Some(&bias), geometry, Activation::Silu, None);
                    let case = format!("sample {b} of {height}x{width}, {kernel}x{kernel}, {geometry:?}");
                    assert_eq!(take_batch(&together, b, 1).data(), conv.data(), "{case}");
                    let sum = add(&conv, &take_batch(&residual, b, 1));
                    assert_eq!(
                        take_batch(&with_residual, b, 1).data(),
                        sum.data(),
                        "{case} and a residual"
                    );
                    if let Some(doubled) = &doubled {
                        let alone = upsample_conv2d(&alone, &weight, Some(&bias));
                        assert_eq!(take_batch(doubled, b, 1).data(), alone.data(), "{case}, doubled");
                    }
                }
            }
        }
    }
}

#[test]
fn a_convolution_of_a_doubled_picture_is_that_of_its_copy() {
    for [batch, height, width, inputs, outputs] in
        [[2, 3, 5, 7, 9], [1, 1, 1, 1, 1], [1, 19, 24, 60, 18], [1, 2, 7, 3, 40]]
    {
        let x = random_tensor(16, &[batch, height, width, inputs]);
        let (w, bias) = (
            random_tensor(17, &[outputs, inputs, 3, 3]),
            random_tensor(18, &[outputs]),
        );
        let got = upsample_conv2d(&x, &Param::new(w.clone()), Some(&Param::new(bias.clone())));
        let plain = plain_conv(&upsample_nearest_2x(&x), &w, Conv2d::padded(1));
        let expected = plain
            .data()
            .iter()
            .enumerate()
            .map(|(i, y)| y + bias.data()[i % outputs]);
        assert_close(&got, &Tensor::from_vec(expected.collect(), plain.shape()), 1e-5);
        if batch == 2 {
            let frozen = Param::new(w.clone());
            check_param_gradient(&w, |p| upsample_conv2d(&x, p, None));
            check_gradients(&[x], |t| upsample_conv2d(&t[0], &frozen, None), 2e-3);
        }
    }
}

/// Values that stay exact in bf16 when a few of them are added or halved: a convolution of them in bf16 has no error.
fn small_integers(seed: u64, shape: &[usize], unit: f32) -> Tensor {
    let values = random_tensor(seed, shape);
    Tensor::from_vec(
        values
            .data()
            .iter()
            .map(|x| x.clamp(-2.0, 2.0).round() * unit)
            .collect(),
        shape,
    )
}

#[test]
fn wide_bf16_convolutions_take_fewer_products_and_have_the_same_result() {
    for [batch, height, width, inputs, outputs] in [[2, 63, 66, 128, 264], [1, 64, 65, 272, 128]] {
        let x = small_integers(21, &[batch, height, width, inputs], 1.0);
        let w = small_integers(22, &[outputs, inputs, 3, 3], 4.0);
        let residual = small_integers(23, &[batch, height, width, outputs], 1.0);
        let bias = Param::new(small_integers(24, &[outputs], 1.0));
        let run = |w: &Param| {
            let geometry = Conv2d::padded(1);
            conv2d(&x, w, Some(&bias), geometry, Activation::Relu, Some(&residual))
        };
        let (narrow, wide) = (run(&narrow(&w)), run(&Param::new(w)));
        assert_eq!(narrow.data(), wide.data(), "{height}x{width}, {inputs} to {outputs}");
    }
}

#[test]
fn weights_that_are_kept_as_sums_have_the_same_results_at_every_size() {
    let w = small_integers(31, &[528, 512, 3, 3], 4.0);
    let summed = Param::absent(w.shape());
    summed.sums_weights();
    summed.fill(w.data(), Keep::Summed(DType::BF16)).unwrap();
    let mut kinds = Vec::new();
    let Ok(()) = summed.each_form::<std::convert::Infallible>(|tag, _| {
        kinds.push(tag.kind);
        Ok(())
    });
    assert_eq!(kinds, [FormKind::WinogradBf16]);
    assert_eq!(summed.tensor().data(), w.data());
    let wide = Param::new(w);
    for [batch, height, width] in [[1, 8, 8], [3, 5, 7], [1, 1, 2], [2, 18, 20]] {
        let x = small_integers(32, &[batch, height, width, 512], 1.0);
        for geometry in [Conv2d::padded(1), Conv2d::strided(2, 1)] {
            let [narrow, wide] = [&summed, &wide].map(|w| conv2d(&x, w, None, geometry, Activation::None, None));
            assert_eq!(narrow.data(), wide.data(), "{batch} of {height}x{width}, {geometry:?}");
        }
    }
}

#[test]
fn doubled_bf16_convolutions_round_factors_and_nothing_else() {
    let (x, w) = (
        small_integers(25, &[1, 9, 7, 6], 1.0),
        small_integers(26, &[18, 6, 3, 3], 1.0),
    );
    let [narrow, wide] = [narrow(&w), Param::new(w)].map(|w| upsample_conv2d(&x, &w, None));
    assert_eq!(narrow.data(), wide.data());
    let (x, w) = (random_tensor(27, x.shape()), random_tensor(28, &[18, 6, 3, 3]));
    let param = Param::new(w.clone());
    param.narrow_to_bf16();
    let wide = upsample_conv2d(&x, &Param::new(w), None);
    assert_close(&upsample_conv2d(&x, &param, None), &wide, 1e-2);
}

#[test]
fn a_convolution_of_a_doubled_picture_trains_with_bf16_products() {
    let [x, w, g] = [
        random_tensor(1, &[2, 5, 7, 9]),
        random_tensor(2, &[20, 9, 3, 3]),
        random_tensor(3, &[2, 10, 14, 20]),
    ];
    let run = |bf16| trained(&x, &w, &g, bf16, |x, w| upsample_conv2d(x, w, None));
    for (narrow, wide) in run(true).iter().zip(&run(false)) {
        assert_close(narrow, wide, 2e-2);
    }
}

/// More pixels than are walked over at a time, more channels than a block has, and ends of both.
#[test]
fn the_gradient_of_a_weight_is_the_sum_over_all_pixels() {
    for (stride, [height, width]) in [(1, [35, 37]), (2, [35, 37]), (1, [7, 8])] {
        let geometry = Conv2d::strided(stride, 1);
        let (x, w) = (
            random_tensor(4, &[4, height, width, 70]),
            random_tensor(5, &[21, 70, 3, 3]),
        );
        let out = plain_conv(&x, &w, geometry);
        let g = random_tensor(6, out.shape());
        let [.., got] = trained(&x, &w, &g, false, |x, w| {
            conv2d(x, w, None, geometry, Activation::None, None)
        });
        let mut want = vec![0.0f64; w.numel()];
        for (at, sum) in want.iter_mut().enumerate() {
            let (o, i, ky, kx) = (at / 630, at / 9 % 70, at / 3 % 3, at % 3);
            let [rows, columns] = [out.dim(1), out.dim(2)];
            for (b, y, x0) in (0..4).flat_map(|b| (0..rows).flat_map(move |y| (0..columns).map(move |x| (b, y, x)))) {
                let (py, px) = ((y * stride + ky).wrapping_sub(1), (x0 * stride + kx).wrapping_sub(1));
                if py < height && px < width {
                    let value = x.data()[((b * height + py) * width + px) * 70 + i];
                    *sum += f64::from(value) * f64::from(g.data()[((b * rows + y) * columns + x0) * 21 + o]);
                }
            }
        }
        let want = want.into_iter().map(|sum| sum as f32).collect();
        assert_close(&got, &Tensor::from_vec(want, w.shape()), 1e-5);
    }
}

#[test]
fn conv2d_gradients_match_finite_differences() {
    for (xs, ws, geometry) in conv_cases() {
        let (x, w) = (random_tensor(10, &xs), random_tensor(11, &ws));
        let frozen = Param::new(w.clone());
        check_gradients(
            std::slice::from_ref(&x),
            |t| conv2d(&t[0], &frozen, None, geometry, Activation::None, None),
            2e-3,
        );
        check_param_gradient(&w, |p| conv2d(&x, p, None, geometry, Activation::None, None));
    }
}

/// Attention by its definition, in f64.
fn plain_attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Tensor {
    let (bs, lq, lk, width) = (q.dim(0), q.dim(1), k.dim(1), q.dim(2));
    let dim = width / heads;
    let at = |t: &Tensor, b: usize, l: usize, len: usize, h: usize, d: usize| {
        f64::from(t.data()[(b * len + l) * width + h * dim + d])
    };
    let mut out = vec![0.0; bs * lq * width];
    for (b, h, i, _) in itertools(bs, heads, lq, 1) {
        let seen = if causal { (i + 1).min(lk) } else { lk };
        let scores: Vec<f64> = (0..seen)
            .map(|j| {
                (0..dim)
                    .map(|d| at(q, b, i, lq, h, d) * at(k, b, j, lk, h, d))
                    .sum::<f64>()
                    / (dim as f64).sqrt()
            })
            .collect();
        let top = scores.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        for d in 0..dim {
            let sum: f64 = scores
                .iter()
                .enumerate()
                .map(|(j, s)| (s - top).exp() / total * at(v, b, j, lk, h, d))
                .sum();
            out[(b * lq + i) * width + h * dim + d] = sum as f32;
        }
    }
    Tensor::from_vec(out, q.shape())
}

/// (batch, queries, keys, heads, head dim, causal)
const ATTENTION_CASES: [(usize, usize, usize, usize, usize, bool); 6] = [
    (1, 1, 1, 1, 1, false),
    (2, 5, 7, 3, 4, false),
    (1, 50, 50, 2, 8, true),
    (1, 97, 300, 1, 16, false),
    (2, 77, 77, 2, 5, true),
    (1, 260, 520, 1, 3, true),
];

#[test]
fn attention_matches_its_definition() {
    for (b, lq, lk, heads, dim, causal) in ATTENTION_CASES {
        let q = random_tensor(12, &[b, lq, heads * dim]);
        let (k, v) = (
            random_tensor(13, &[b, lk, heads * dim]),
            random_tensor(14, &[b, lk, heads * dim]),
        );
        assert_close(
            &attention(&q, &k, &v, heads, causal),
            &plain_attention(&q, &k, &v, heads, causal),
            1e-5,
        );
    }
}

#[test]
fn attention_gradients_match_finite_differences() {
    for (b, lq, lk, heads, dim, causal) in [(1, 5, 7, 2, 3, false), (2, 6, 6, 1, 4, true), (1, 49, 3, 1, 2, false)] {
        let q = random_tensor(15, &[b, lq, heads * dim]);
        let (k, v) = (
            random_tensor(16, &[b, lk, heads * dim]),
            random_tensor(17, &[b, lk, heads * dim]),
        );
        check_gradients(&[q, k, v], |t| attention(&t[0], &t[1], &t[2], heads, causal), 2e-3);
    }
}
