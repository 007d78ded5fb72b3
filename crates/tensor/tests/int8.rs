//! Weights and activations of 8 bits: the products against integers summed one by one, which they equal to the bit, and
//! against the products of the values.

mod common;
use common::{assert_close, random_tensor};
use prima_tensor::{Activation, Conv2d, Param, Tensor, conv2d, linear, upsample_conv2d, upsample_nearest_2x};

fn quantized(w: &Tensor) -> Param {
    let param = Param::new(w.clone());
    param.quantize_to_int8();
    assert_eq!(param.bits(), Some(8));
    param
}

/// What values become: the size of a step, the zero, and the bytes.
fn bytes(values: &[f32]) -> (f32, i32, Vec<i32>) {
    let low = values.iter().copied().fold(0.0, f32::min);
    let high = values.iter().copied().fold(0.0, f32::max);
    let size = (high - low) / 255.0;
    let inverse = 1.0 / size;
    let zero = (-low * inverse).round_ties_even() as i32;
    let byte = |x: &f32| ((x * inverse).round_ties_even() as i32 + zero).clamp(0, 255);
    (size, zero, values.iter().map(byte).collect())
}

/// A row of weights: what one is worth, and the integers.
fn weights(row: &[f32]) -> (f32, Vec<i32>) {
    let scale = row.iter().fold(0.0f32, |top, x| top.max(x.abs())) / 127.0;
    let inverse = 1.0 / scale;
    (
        scale,
        row.iter().map(|x| (x * inverse).round_ties_even() as i32).collect(),
    )
}

/// `(Σ (byte - zero) · weight) · (size · scale)`, as the engine rounds it.
fn value(products: impl Iterator<Item = i32>, size: f32, scale: f32) -> f32 {
    products.sum::<i32>() as f32 * (size * scale)
}

#[test]
fn linear_layers_of_8_bits_are_exact_integer_sums() {
    for (m, k, n) in [(1, 1, 1), (7, 5, 17), (97, 401, 33), (200, 1027, 48), (30, 4096, 130)] {
        let (x, w, bias) = (
            random_tensor(1, &[m, k]),
            random_tensor(2, &[n, k]),
            random_tensor(3, &[n]),
        );
        let got = linear(
            &x,
            &quantized(&w),
            Some(&Param::new(bias.clone())),
            Activation::None,
            None,
        );
        let rows: Vec<_> = w.data().chunks_exact(k).map(weights).collect();
        for (x, got) in x.data().chunks_exact(k).zip(got.data().chunks_exact(n)) {
            let (size, zero, x) = bytes(x);
            for (j, (scale, w)) in rows.iter().enumerate() {
                let products = x.iter().zip(w).map(|(x, w)| (x - zero) * w);
                assert_eq!(
                    got[j],
                    value(products, size, *scale) + bias.data()[j],
                    "{m}x{k}x{n}, column {j}"
                );
            }
        }
    }
}

/// Pictures each of whose rows holds the lowest and the highest value, so that every band has the same range.
fn picture(shape: [usize; 4]) -> Tensor {
    let [_, _, width, channels] = shape;
    let mut values: Vec<f32> = random_tensor(5, &shape)
        .data()
        .iter()
        .map(|x| x.clamp(-1.5, 3.0))
        .collect();
    for row in values.chunks_exact_mut(width * channels) {
        (row[0], row[width * channels - 1]) = (-1.5, 3.0);
    }
    Tensor::from_vec(values, &shape)
}

#[test]
fn convolutions_of_8_bits_are_exact_integer_sums() {
    for (shape, outputs, kernel, stride) in [
        ([1, 5, 4, 3], 7, 3, 1),
        ([2, 19, 7, 8], 33, 3, 1),
        ([1, 9, 8, 6], 16, 3, 2),
        ([1, 40, 33, 5], 50, 3, 1),
        ([1, 6, 5, 12], 20, 1, 1),
    ] {
        let [batch, height, width, inputs] = shape;
        let (x, w) = (picture(shape), random_tensor(6, &[outputs, inputs, kernel, kernel]));
        let geometry = Conv2d::strided(stride, kernel / 2);
        let got = conv2d(&x, &quantized(&w), None, geometry, Activation::None, None);
        let rows: Vec<_> = w.data().chunks_exact(inputs * kernel * kernel).map(weights).collect();
        let [out_height, out_width] = [got.dim(1), got.dim(2)];
        for (at, got) in got.data().iter().enumerate() {
            let (pixel, o) = (at / outputs, at % outputs);
            let (b, y, x0) = (
                pixel / (out_height * out_width),
                pixel / out_width % out_height,
                pixel % out_width,
            );
            // A 1x1 convolution is a product of rows, each with a range of its own.
            let seen = if kernel == 1 {
                &x.data()[pixel * inputs..][..inputs]
            } else {
                x.data()
            };
            let (size, zero, all) = bytes(seen);
            let mut products = Vec::new();
            for (i, tap) in (0..inputs).flat_map(|i| (0..kernel * kernel).map(move |tap| (i, tap))) {
                let (y, x0) = (y * stride + tap / kernel, x0 * stride + tap % kernel);
                let (Some(y), Some(x0)) = (y.checked_sub(kernel / 2), x0.checked_sub(kernel / 2)) else {
                    continue;
                };
                if y < height && x0 < width {
                    let place = if kernel == 1 {
                        i
                    } else {
                        ((b * height + y) * width + x0) * inputs + i
                    };
                    products.push((all[place] - zero) * rows[o].1[i * kernel * kernel + tap]);
                }
            }
            assert_eq!(
                *got,
                value(products.into_iter(), size, rows[o].0),
                "{shape:?}, stride {stride}, value {at}"
            );
        }
        assert_eq!(got.dim(0), batch);
    }
}

/// Root of the mean square of the difference, in parts of that of `b`.
fn error(a: &Tensor, b: &Tensor) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let apart: f64 = a.data().iter().zip(b.data()).map(|(a, b)| square(a - b)).sum();
    (apart / b.data().iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

#[test]
fn products_of_8_bits_are_near_those_of_the_values() {
    let (x, w) = (random_tensor(1, &[64, 640]), random_tensor(2, &[96, 640]));
    let run = |w: &Param| linear(&x, w, None, Activation::None, None);
    let apart = error(&run(&quantized(&w)), &run(&Param::new(w.clone())));
    assert!((0.002..0.02).contains(&apart), "{apart}");
    let (x, w) = (random_tensor(3, &[1, 24, 20, 64]), random_tensor(4, &[40, 64, 3, 3]));
    let run = |w: &Param| conv2d(&x, w, None, Conv2d::padded(1), Activation::None, None);
    let apart = error(&run(&quantized(&w)), &run(&Param::new(w.clone())));
    assert!((0.002..0.02).contains(&apart), "{apart}");
    let run = |w: &Param| upsample_conv2d(&x, w, None);
    let wide = conv2d(
        &upsample_nearest_2x(&x),
        &Param::new(w.clone()),
        None,
        Conv2d::padded(1),
        Activation::None,
        None,
    );
    let apart = error(&run(&quantized(&w)), &wide);
    assert!((0.002..0.03).contains(&apart), "{apart}");
}

#[test]
fn a_quantized_weight_is_worth_its_integers_and_quantizes_to_itself() {
    for shape in [&[33, 7][..], &[70, 64], &[5, 2, 3, 3], &[40, 3, 3, 3]] {
        let w = random_tensor(7, shape);
        let param = quantized(&w);
        let depth = w.numel() / shape[0];
        let want = w.data().chunks_exact(depth).flat_map(|row| {
            let (scale, integers) = weights(row);
            integers.into_iter().map(move |q| scale * q as f32)
        });
        let want = Tensor::from_vec(want.collect(), shape);
        assert_eq!(param.tensor().data(), want.data());
        assert_close(&quantized(&want).tensor(), &want, 1e-6);
    }
    // Nothing to multiply: a vector stays what it is.
    let vector = Param::new(random_tensor(8, &[16]));
    vector.quantize_to_int8();
    assert_eq!(vector.bits(), None);
}

#[test]
fn what_is_not_finite_is_seen_in_the_result() {
    let mut values = random_tensor(9, &[3, 40]).data().to_vec();
    values[50] = f32::NAN;
    let w = quantized(&random_tensor(10, &[20, 40]));
    let out = linear(&Tensor::from_vec(values, &[3, 40]), &w, None, Activation::None, None);
    let finite: Vec<bool> = out
        .data()
        .chunks_exact(20)
        .map(|row| row.iter().all(|x| x.is_finite()))
        .collect();
    assert_eq!(finite, [true, false, true]);
    assert!(out.data()[20..40].iter().all(|x| x.is_nan()));
}

#[test]
fn weights_of_4_bits_multiply_as_the_bytes_that_they_stand_for() {
    let quantized = |w: &Tensor| {
        let param = Param::new(w.clone());
        param.quantize_to_int4();
        assert_eq!(param.bits(), Some(4));
        param
    };
    let (x, w) = (random_tensor(1, &[30, 96]), random_tensor(2, &[50, 96]));
    let run = |w: &Param| linear(&x, w, None, Activation::None, None);
    let param = quantized(&w);
    let apart = error(&run(&param), &run(&Param::new(param.tensor())));
    assert!(apart < 0.01, "the products are {apart} off");
    let apart = error(&run(&param), &run(&Param::new(w)));
    assert!((0.03..0.1).contains(&apart), "4 bits are {apart} off");
    let (x, w) = (random_tensor(3, &[1, 9, 8, 64]), random_tensor(4, &[40, 64, 3, 3]));
    let param = quantized(&w);
    let run = |w: &Param| conv2d(&x, w, None, Conv2d::padded(1), Activation::None, None);
    let apart = error(&run(&param), &run(&Param::new(param.tensor())));
    assert!(apart < 0.01, "the convolution is {apart} off");
    let run = |w: &Param| upsample_conv2d(&x, w, None);
    let apart = error(&run(&param), &run(&Param::new(param.tensor())));
    assert!(apart < 0.02, "the doubled convolution is {apart} off");
    // Seven inputs are no group.
    let narrow = Param::new(random_tensor(5, &[20, 7]));
    narrow.quantize_to_int4();
    assert_eq!(narrow.bits(), None);
}
