//! Depthwise convolution over channels-last pictures.

use super::math::{dispatch, mul_add};
use super::pack::Aligned;
use super::{activation, parallel};
use crate::Activation;
use crate::ops::ConvolutionSizes;

/// Channels summed in registers at a time.
const LANES: usize = 32;

/// Taps `from..to` of a kernel of `size` that read inside of `0..len` when the first reads at `start - before`.
fn taps(size: usize, start: usize, before: usize, len: usize) -> std::ops::Range<usize> {
    let from = before.saturating_sub(start);
    let to = size.min((len + before).saturating_sub(start));
    from..to.max(from)
}

/// One output row `y` of one picture `x`; `weight` is `[kh, kw, C]`.
#[inline(always)]
fn row_body<const FMA: bool>(s: &ConvolutionSizes, x: &[f32], weight: &[f32], bias: &[f32], y: usize, out: &mut [f32]) {
    let c = s.outputs;
    let y_taps = taps(s.kh, y * s.stride, s.top(), s.height);
    for (column, out) in out.chunks_exact_mut(c).enumerate() {
        let x_taps = taps(s.kw, column * s.stride, s.left(), s.width);
        let mut first = 0;
        while first < c {
            let count = LANES.min(c - first);
            let mut sums = [0.0f32; LANES];
            sums[..count].copy_from_slice(&bias[first..first + count]);
            for ky in y_taps.clone() {
                for kx in x_taps.clone() {
                    let pixel = (y * s.stride + ky - s.top()) * s.width + column * s.stride + kx - s.left();
                    let x = &x[pixel * c + first..][..count];
                    let w = &weight[(ky * s.kw + kx) * c + first..][..count];
                    if let (Some(x), Some(w)) = (x.first_chunk::<LANES>(), w.first_chunk::<LANES>()) {
                        for i in 0..LANES {
                            sums[i] = mul_add::<FMA>(x[i], w[i], sums[i]);
                        }
                    } else {
                        for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(w) {
                            *sum = mul_add::<FMA>(x, w, *sum);
                        }
                    }
                }
            }
            out[first..first + count].copy_from_slice(&sums[..count]);
            first += count;
        }
    }
}

dispatch! {
    fn row(s: &ConvolutionSizes, x: &[f32], weight: &[f32], bias: &[f32], y: usize, out: &mut [f32]) = row_body
}

/// Taps of a kernel of `size` that read input `at`, each with the output that it read it for.
fn readers(
    size: usize,
    stride: usize,
    at: usize,
    before: usize,
    len: usize,
) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..size).filter_map(move |tap| {
        let from = (at + before).checked_sub(tap)?;
        let is_read = from.is_multiple_of(stride) && from / stride < len;
        is_read.then_some((tap, from / stride))
    })
}

/// One input row `y` of one picture's gradient, from the output's `grad`; `weight` is `[kh, kw, C]`.
#[inline(always)]
fn grad_row_body<const FMA: bool>(s: &ConvolutionSizes, grad: &[f32], weight: &[f32], y: usize, dx: &mut [f32]) {
    let c = s.outputs;
    let rows = readers(s.kh, s.stride, y, s.top(), s.out_height);
    for (column, dx) in dx.chunks_exact_mut(c).enumerate() {
        let columns = readers(s.kw, s.stride, column, s.left(), s.out_width);
        for (ky, out_y) in rows.clone() {
            for (kx, out_x) in columns.clone() {
                let grad = &grad[(out_y * s.out_width + out_x) * c..][..c];
                let weight = &weight[(ky * s.kw + kx) * c..][..c];
                for ((dx, &g), &w) in dx.iter_mut().zip(grad).zip(weight) {
                    *dx = mul_add::<FMA>(g, w, *dx);
                }
            }
        }
    }
}

dispatch! {
    fn grad_row(s: &ConvolutionSizes, grad: &[f32], weight: &[f32], y: usize, dx: &mut [f32]) = grad_row_body
}

/// `[C, taps] -> [taps, C]`.
pub(crate) fn pack(weight: &[f32], channels: usize) -> Aligned<f32> {
    let taps = weight.len() / channels;
    let mut packed = Aligned::zeros(weight.len());
    for (i, w) in packed.iter_mut().enumerate() {
        *w = weight[i % channels * taps + i / channels];
    }
    packed
}

/// `act(x * weight + bias)`, `weight` packed as `[kh, kw, C]`.
pub(crate) fn forward(s: &ConvolutionSizes, x: &[f32], weight: &[f32], bias: &[f32], act: Activation) -> Vec<f32> {
    let width = s.out_width * s.outputs;
    let mut out = vec![0.0; s.batch * s.out_height * width];
    let sample = s.height * s.width * s.outputs;
    parallel::for_rows(&mut out, width, |at, part| {
        for (i, line) in part.chunks_exact_mut(width).enumerate() {
            let (b, y) = ((at / width + i) / s.out_height, (at / width + i) % s.out_height);
            row(s, &x[b * sample..(b + 1) * sample], weight, bias, y, line);
            activation::apply(act, line);
        }
    });
    out
}

/// The gradient of the input from that of the output, `weight` packed as `[kh, kw, C]`.
pub(crate) fn grad_input(s: &ConvolutionSizes, grad: &[f32], weight: &[f32]) -> Vec<f32> {
    let width = s.width * s.outputs;
    let mut dx = vec![0.0; s.batch * s.height * width];
    let sample = s.out_height * s.out_width * s.outputs;
    parallel::for_rows(&mut dx, width, |at, part| {
        for (i, line) in part.chunks_exact_mut(width).enumerate() {
            let (b, y) = ((at / width + i) / s.height, (at / width + i) % s.height);
            grad_row(s, &grad[b * sample..(b + 1) * sample], weight, y, line);
        }
    });
    dx
}
