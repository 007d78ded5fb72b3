//! Depthwise convolution against the definition.

mod common;

use common::{assert_close_f64, random_tensor};
use prima_tensor::*;

fn reference(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, geometry: Conv2d, out: &[usize]) -> Vec<f64> {
    let (height, width, c) = (x.dim(1), x.dim(2), x.dim(3));
    let (kh, kw) = (w.dim(2), w.dim(3));
    let [top, _, left, _] = geometry.padding;
    let value = |i: usize| {
        let (b, y, xx, k) = (
            i / (out[1] * out[2] * c),
            i / (out[2] * c) % out[1],
            i / c % out[2],
            i % c,
        );
        let mut sum = bias.map_or(0.0, |b| f64::from(b.data()[k]));
        for ky in 0..kh {
            for kx in 0..kw {
                let (row, column) = (y * geometry.stride + ky, xx * geometry.stride + kx);
                if (top..top + height).contains(&row) && (left..left + width).contains(&column) {
                    let at = ((b * height + row - top) * width + column - left) * c + k;
                    sum += f64::from(x.data()[at]) * f64::from(w.data()[(k * kh + ky) * kw + kx]);
                }
            }
        }
        sum
    };
    (0..out.iter().product()).map(value).collect()
}

#[test]
fn it_matches_the_definition_for_every_geometry() {
    let cases: [([usize; 4], [usize; 2], Conv2d); 7] = [
        ([1, 1, 1, 1], [1, 1], Conv2d::padded(0)),
        ([3, 5, 4, 7], [3, 3], Conv2d::padded(1)),
        ([1, 7, 6, 33], [3, 3], Conv2d::strided(2, 1)),
        (
            [2, 8, 8, 32],
            [5, 5],
            Conv2d {
                stride: 2,
                padding: [1, 2, 1, 2],
            },
        ),
        ([1, 2, 2, 40], [5, 5], Conv2d::padded(2)),
        (
            [1, 9, 5, 3],
            [3, 5],
            Conv2d {
                stride: 1,
                padding: [0, 1, 3, 0],
            },
        ),
        ([2, 40, 41, 70], [3, 3], Conv2d::padded(1)),
    ];
    for (shape, [kh, kw], geometry) in cases {
        let (x, c) = (random_tensor(1, &shape), shape[3]);
        let (w, bias) = (random_tensor(2, &[c, 1, kh, kw]), random_tensor(3, &[c]));
        let (weight, bias_param) = (Param::new(w.clone()), Param::new(bias.clone()));
        let y = depthwise_conv2d(&x, &weight, Some(&bias_param), geometry, Activation::None);
        let want = reference(&x, &w, Some(&bias), geometry, y.shape());
        assert_close_f64(&y, &want, 2e-6);
        let want: Vec<f64> = want.iter().map(|v| v.clamp(0.0, 6.0)).collect();
        let relu6 = depthwise_conv2d(&x, &weight, Some(&bias_param), geometry, Activation::Relu6);
        assert_close_f64(&relu6, &want, 3e-6);
        let plain = depthwise_conv2d(&x, &weight, None, geometry, Activation::None);
        assert_close_f64(&plain, &reference(&x, &w, None, geometry, y.shape()), 2e-6);
    }
}

#[test]
fn its_gradient_is_the_forward_pass_read_backwards() {
    let cases: [([usize; 4], [usize; 2], Conv2d); 4] = [
        ([3, 5, 4, 7], [3, 3], Conv2d::padded(1)),
        ([1, 7, 6, 33], [3, 3], Conv2d::strided(2, 1)),
        (
            [2, 8, 9, 32],
            [5, 5],
            Conv2d {
                stride: 2,
                padding: [1, 2, 2, 2],
            },
        ),
        (
            [1, 9, 5, 3],
            [3, 5],
            Conv2d {
                stride: 1,
                padding: [0, 1, 3, 0],
            },
        ),
    ];
    for (shape, [kh, kw], geometry) in cases {
        let (x, other) = (random_tensor(1, &shape), random_tensor(4, &shape));
        let (x, weight) = (x.requires_grad(), Param::new(random_tensor(2, &[shape[3], 1, kh, kw])));
        let run = |x: &Tensor| depthwise_conv2d(x, &weight, None, geometry, Activation::None);
        let y = run(&x);
        let toward = random_tensor(3, y.shape());
        let dot = |a: &Tensor, b: &Tensor| -> f64 {
            let products = a.data().iter().zip(b.data());
            products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        // The mean of weighted squares has the gradient 2 (y - target) / numel: here `toward`, up to that factor.
        let target = sub(&y.detach(), &affine(&toward, 0.5 * y.numel() as f32, 0.0));
        let gradients = weighted_mse(&y, &target, &vec![1.0; shape[0]]).backward();
        let dx = gradients.get(&x).unwrap();
        let (forward, backward) = (dot(&no_grad(|| run(&other)), &toward), dot(&other, dx));
        assert!(
            (forward - backward).abs() < 1e-3 * forward.abs().max(1.0),
            "{forward} {backward}"
        );
    }
}

#[test]
fn its_gradient_goes_through_the_activation() {
    let x = Tensor::from_vec(vec![-1.0, 1.0, 7.0], &[1, 1, 3, 1]).requires_grad();
    let weight = Param::new(Tensor::from_vec(vec![2.0], &[1, 1, 1, 1]));
    let y = depthwise_conv2d(&x, &weight, None, Conv2d::padded(0), Activation::Relu6);
    let gradients = weighted_mse(&y, &Tensor::zeros(y.shape()), &[1.0]).backward();
    // Only the middle one is between 0 and 6: 2 y / 3 times the filter.
    assert_eq!(gradients.get(&x).unwrap().data(), [0.0, 2.0 * 2.0 / 3.0 * 2.0, 0.0]);
}

#[test]
#[should_panic(expected = "has no gradient of weight")]
fn training_its_filters_is_refused() {
    let weight = Param::new(Tensor::zeros(&[2, 1, 1, 1]));
    weight.set_trainable(true);
    depthwise_conv2d(
        &Tensor::zeros(&[1, 1, 1, 2]),
        &weight,
        None,
        Conv2d::padded(0),
        Activation::None,
    );
}
