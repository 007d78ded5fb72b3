//! Pictures doubled by repeating their pixels, and back.

use super::parallel;

/// Rows of `w` pixels to pairs of rows of `2 w`.
pub(crate) fn doubled(x: &[f32], w: usize, c: usize) -> Vec<f32> {
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
pub(crate) fn sums_of_copies(grad: &[f32], w: usize, c: usize) -> Vec<f32> {
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

/// `factor` times each `[c]` of `x`, `pixels` times.
pub(crate) fn repeated(x: &[f32], c: usize, pixels: usize, factor: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len() * pixels);
    for values in x.chunks_exact(c) {
        let pixel: Vec<f32> = values.iter().map(|v| v * factor).collect();
        (0..pixels).for_each(|_| out.extend_from_slice(&pixel));
    }
    out
}
