use crate::Tensor;
use crate::autograd::record;
use crate::cpu::{elementwise as kernel, parallel};
use crate::device::gpu;
use crate::ops::elementwise::scale_samples;

/// `[B, H, W, C] -> [B, 2H, 2W, C]`, nearest neighbour. Backward: each pixel sums its four copies.
pub fn upsample_nearest_2x(x: &Tensor) -> Tensor {
    let &[b, h, w, c] = x.shape() else {
        panic!("upsample_nearest_2x wants [B, H, W, C], shape is {:?}", x.shape())
    };
    let out = match gpu() {
        Some(gpu) => gpu.upsample(x),
        None => Tensor::from_vec(upsampled(x.data(), w, c), &[b, 2 * h, 2 * w, c]),
    };
    record(out, &[x], move |grad| {
        vec![Some(match gpu() {
            Some(gpu) => gpu.upsample_backward(grad),
            None => Tensor::from_vec(sums_of_copies(grad.data(), w, c), &[b, h, w, c]),
        })]
    })
}

/// Rows of `w` pixels to pairs of rows of `2 w`.
fn upsampled(x: &[f32], w: usize, c: usize) -> Vec<f32> {
    let row = 2 * w * c;
    let mut out = vec![0.0; 4 * x.len()];
    if !out.is_empty() {
        parallel::for_rows(&mut out, 2 * row, |at, part| {
            for (i, pair) in part.chunks_exact_mut(2 * row).enumerate() {
                let from = (at / (2 * row) + i) * w * c;
                let (top, bottom) = pair.split_at_mut(row);
                for (pixel, twice) in x[from..from + w * c].chunks_exact(c).zip(top.chunks_exact_mut(2 * c)) {
                    let (left, right) = twice.split_at_mut(c);
                    left.copy_from_slice(pixel);
                    right.copy_from_slice(pixel);
                }
                bottom.copy_from_slice(top);
            }
        });
    }
    out
}

/// Back to rows of `w` pixels, each the sum of four.
fn sums_of_copies(grad: &[f32], w: usize, c: usize) -> Vec<f32> {
    let row = 2 * w * c;
    let mut dx = vec![0.0; grad.len() / 4];
    if !dx.is_empty() {
        parallel::for_rows(&mut dx, w * c, |at, part| {
            for (i, line) in part.chunks_exact_mut(w * c).enumerate() {
                let from = (at / (w * c) + i) * 2 * row;
                let (top, bottom) = grad[from..from + 2 * row].split_at(row);
                for (x, pixel) in line.chunks_exact_mut(c).enumerate() {
                    for (k, d) in pixel.iter_mut().enumerate() {
                        let (left, right) = (2 * x * c + k, (2 * x + 1) * c + k);
                        *d = (top[left] + top[right]) + (bottom[left] + bottom[right]);
                    }
                }
            }
        });
    }
    dx
}

/// `[B, H, W, C] -> [B, C]`, mean over the picture. Backward: `grad / (H W)` to each pixel.
pub fn avg_pool_global(x: &Tensor) -> Tensor {
    let &[b, h, w, c] = x.shape() else {
        panic!("avg_pool_global wants [B, H, W, C], shape is {:?}", x.shape())
    };
    assert!(h * w * c > 0, "avg_pool_global of no pixels");
    let factor = 1.0 / (h * w) as f32;
    let out = if let Some(gpu) = gpu() {
        gpu.sum_samples(x, factor)
    } else {
        let sums = x.data().chunks_exact(h * w * c).flat_map(|s| kernel::column_sums(s, c));
        scale_samples(&Tensor::from_vec(sums.collect(), &[b, c]), &vec![factor; b])
    };
    record(out, &[x], move |grad| {
        if let Some(gpu) = gpu() {
            return vec![Some(gpu.broadcast_rows(grad, &[b, h, w, c], factor))];
        }
        let mut dx = Vec::with_capacity(b * h * w * c);
        for grad in grad.data().chunks_exact(c) {
            let pixel: Vec<f32> = grad.iter().map(|g| g * factor).collect();
            (0..h * w).for_each(|_| dx.extend_from_slice(&pixel));
        }
        vec![Some(Tensor::from_vec(dx, &[b, h, w, c]))]
    })
}
