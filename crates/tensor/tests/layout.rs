//! Layout, embedding and resampling ops: where each value goes, and where its gradient comes from.

mod common;

use common::{assert_close, assert_close_f64, check_gradients, random_tensor};
use prima_tensor::*;

#[test]
fn concat_channels_then_narrow_gives_the_parts_back() {
    for (lead, widths) in [
        (&[1, 1, 1][..], [1, 2, 3]),
        (&[3, 2, 5], [7, 1, 4]),
        (&[2, 60, 70], [5, 3, 2]),
    ] {
        let part = |i: usize| random_tensor(i as u64, &[lead, &[widths[i]]].concat());
        let parts = [part(0), part(1), part(2)];
        let joined = concat_channels(&[&parts[0], &parts[1], &parts[2]]);
        let mut start = 0;
        for part in &parts {
            assert_close(&narrow_channels(&joined, start, part.dim(-1)), part, 0.0);
            start += part.dim(-1);
        }
        assert_eq!(joined.dim(-1), start);
    }
}

#[test]
fn concat_tokens_keeps_samples_apart() {
    let a = Tensor::from_vec((0..6).map(|v| v as f32).collect(), &[3, 1, 2]);
    let b = Tensor::from_vec((10..22).map(|v| v as f32).collect(), &[3, 2, 2]);
    let got = concat_tokens(&[&a, &b]);
    assert_eq!(got.shape(), [3, 3, 2]);
    let want = [0, 1, 10, 11, 12, 13, 2, 3, 14, 15, 16, 17, 4, 5, 18, 19, 20, 21];
    assert_eq!(got.data(), want.map(|v| v as f32));
}

#[test]
fn stack_batch_then_take_batch_gives_the_samples_back() {
    let (a, b) = (random_tensor(1, &[1, 3, 5]), random_tensor(2, &[3, 3, 5]));
    let all = stack_batch(&[&a, &b]);
    assert_close(&take_batch(&all, 0, 1), &a, 0.0);
    assert_close(&take_batch(&all, 1, 3), &b, 0.0);
}

#[test]
fn nhwc_puts_each_value_where_it_belongs() {
    for [b, c, h, w] in [[1, 1, 1, 1], [3, 5, 2, 7], [1, 33, 17, 19], [2, 4, 100, 101]] {
        let x = random_tensor(3, &[b, c, h, w]);
        let y = nchw_to_nhwc(&x);
        assert_eq!(y.shape(), [b, h, w, c]);
        for i in 0..x.numel() {
            let (n, k, row, column) = (i / (c * h * w), i / (h * w) % c, i / w % h, i % w);
            assert_eq!(x.data()[i], y.data()[((n * h + row) * w + column) * c + k]);
        }
        assert_close(&nhwc_to_nchw(&y), &x, 0.0);
    }
}

#[test]
fn layout_gradients_match_differences() {
    let parts = [random_tensor(4, &[3, 2, 5]), random_tensor(5, &[3, 2, 1])];
    check_gradients(&parts, |t| concat_channels(&[&t[0], &t[1], &t[0]]), 2e-3);
    let parts = [random_tensor(4, &[3, 2, 5]), random_tensor(5, &[3, 1, 5])];
    check_gradients(&parts, |t| concat_tokens(&[&t[0], &t[1]]), 2e-3);
    let parts = [random_tensor(4, &[3, 2, 5]), random_tensor(5, &[1, 2, 5])];
    check_gradients(&parts, |t| stack_batch(&[&t[0], &t[1]]), 2e-3);
    check_gradients(&parts[..1], |t| narrow_channels(&t[0], 1, 3), 2e-3);
    check_gradients(&parts[..1], |t| take_batch(&t[0], 1, 2), 2e-3);
    let x = [random_tensor(6, &[3, 5, 2, 3])];
    check_gradients(&x, |t| nchw_to_nhwc(&t[0]), 2e-3);
    check_gradients(&x, |t| nhwc_to_nchw(&t[0]), 2e-3);
}

#[test]
fn a_concatenated_constant_gets_no_gradient() {
    let (a, b) = (random_tensor(7, &[2, 3]).requires_grad(), random_tensor(8, &[2, 2]));
    let y = concat_channels(&[&b, &a]);
    let gradients = weighted_mse(&y, &Tensor::zeros(&[2, 5]), &[1.0, 1.0]).backward();
    assert_close(gradients.get(&a).unwrap(), &affine(&a.detach(), 0.2, 0.0), 1e-6);
}

#[test]
fn upsampling_repeats_each_pixel_and_its_gradient_sums_them() {
    for [b, h, w, c] in [[1, 1, 1, 1], [3, 2, 3, 5], [1, 40, 50, 17]] {
        let x = random_tensor(9, &[b, h, w, c]);
        let y = upsample_nearest_2x(&x);
        assert_eq!(y.shape(), [b, 2 * h, 2 * w, c]);
        for i in 0..y.numel() {
            let (n, row, column, k) = (i / (4 * h * w * c), i / (2 * w * c) % (2 * h), i / c % (2 * w), i % c);
            assert_eq!(y.data()[i], x.data()[((n * h + row / 2) * w + column / 2) * c + k]);
        }
        if x.numel() < 1000 {
            check_gradients(&[x], |t| upsample_nearest_2x(&t[0]), 2e-3);
        } else {
            // mean((y - 0)²): each pixel's gradient is four times 2 x / n.
            let x = x.requires_grad();
            let y = upsample_nearest_2x(&x);
            let gradients = weighted_mse(&y, &Tensor::zeros(y.shape()), &[y.numel() as f32 / 8.0]).backward();
            assert_close(gradients.get(&x).unwrap(), &x.detach(), 1e-5);
        }
    }
}

#[test]
fn global_pooling_is_the_mean_over_the_picture() {
    for [b, h, w, c] in [[1, 1, 1, 3], [3, 2, 3, 5], [2, 70, 60, 19]] {
        let x = random_tensor(10, &[b, h, w, c]);
        let mut want = vec![0.0f64; b * c];
        for (i, v) in x.data().iter().enumerate() {
            want[i / (h * w * c) * c + i % c] += f64::from(*v) / (h * w) as f64;
        }
        assert_close_f64(&avg_pool_global(&x), &want, 3e-6);
        if x.numel() < 1000 {
            check_gradients(&[x], |t| avg_pool_global(&t[0]), 2e-3);
        }
    }
}

#[test]
fn embedding_looks_rows_up_and_repeated_ids_share_their_gradient() {
    let table = Param::new(random_tensor(11, &[5, 3]));
    table.set_trainable(true);
    let ids = [4, 0, 4, 4, 2, 0];
    let y = embedding(&table, &ids, 2);
    assert_eq!(y.shape(), [2, 3, 3]);
    for (row, &id) in y.data().chunks(3).zip(&ids) {
        assert_eq!(row, &table.tensor().data()[id as usize * 3..][..3]);
    }
    let gradients = weighted_mse(&y, &Tensor::zeros(y.shape()), &[9.0, 9.0]).backward();
    let times = [2.0, 0.0, 1.0, 0.0, 3.0];
    let want: Vec<f64> = table
        .tensor()
        .data()
        .iter()
        .enumerate()
        .map(|(i, &v)| f64::from(v) * times[i / 3])
        .collect();
    assert_close_f64(gradients.param(&table).unwrap(), &want, 1e-6);
}

#[test]
fn positions_are_added_to_every_sample_from_a_table_that_may_be_longer() {
    let table = Param::new(random_tensor(12, &[6, 5]));
    table.set_trainable(true);
    let x = random_tensor(13, &[3, 4, 5]);
    let y = add_positions(&x, &table);
    let want: Vec<f64> = (0..60)
        .map(|i| f64::from(x.data()[i]) + f64::from(table.tensor().data()[i % 20]))
        .collect();
    assert_close_f64(&y, &want, 1e-6);
    let gradients = weighted_mse(&y, &sub(&y.detach(), &Tensor::full(1.0, y.shape())), &[30.0; 3]).backward();
    let want: Vec<f64> = (0..30).map(|i| if i < 20 { 3.0 } else { 0.0 }).collect();
    assert_close_f64(gradients.param(&table).unwrap(), &want, 1e-5);
    check_gradients(&[x], |t| add_positions(&t[0], &table), 2e-3);
}

#[test]
fn gather_rows_takes_one_row_of_each_sample() {
    let x = random_tensor(14, &[3, 4, 5]);
    let y = gather_rows(&x, &[3, 0, 2]);
    let want = [&x.data()[15..20], &x.data()[20..25], &x.data()[50..55]].concat();
    assert_eq!((y.shape(), y.data()), (&[3, 5][..], &want[..]));
    check_gradients(&[x], |t| gather_rows(&t[0], &[3, 0, 2]), 2e-3);
}

#[test]
#[should_panic(expected = "id 5 is outside of a table of 5 rows")]
fn an_id_outside_of_the_table_is_named() {
    embedding(&Param::new(Tensor::zeros(&[5, 3])), &[1, 5], 1);
}

#[test]
#[should_panic(expected = "differ outside of axis")]
fn concatenating_mismatched_shapes_is_refused() {
    concat_channels(&[&Tensor::zeros(&[2, 3]), &Tensor::zeros(&[3, 3])]);
}
