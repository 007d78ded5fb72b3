//! Convolution as an implicit GEMM: the rows of the left matrix are gathered from the
//! channels-last picture while they are packed, tap by tap, so im2col is never stored.

use crate::cpu::bf16::interleave_pairs;
use crate::cpu::gemm::{self, Left, pairs_of_values};
use crate::cpu::interleave::{copy_few, interleave};
use crate::cpu::kernel::{Pair, Word, kernel};
use crate::cpu::pack::{Packed, Panels, pack_panels, pack_right, pack_right_rows};
use crate::cpu::parallel::zeros;
use crate::cpu::tile::Epilogue;
use crate::cpu::{direct, winograd};
use crate::ops::ConvolutionSizes;
use crate::{Activation, DType, Param, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Packed forms beside that of the forward pass.
const BACKWARD: u8 = 1;
/// [`BACKWARD`] with the taps in reverse: the gradient is then a convolution like any other.
const BACKWARD_DIRECT: u8 = 2;
/// The four kernels for a doubled picture.
const DOUBLED: u8 = 3;
/// The sixteen matrices of [`winograd`].
const WINOGRAD: u8 = 4;

impl ConvolutionSizes {
    fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// A 1x1 convolution that touches each pixel once is a plain matrix product.
    fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == 1 && (self.out_height, self.out_width) == (self.height, self.width)
    }

    /// As the direct way wants it, `channels` to `outputs` in words of type `W`, if it is faster.
    fn direct<W: Word>(&self, channels: usize, outputs: usize) -> Option<direct::DirectConvolution> {
        let centred = (self.top(), self.left()) == (self.kh / 2, self.kw / 2) && self.kh % 2 == 1 && self.kw % 2 == 1;
        let same_size = (self.out_height, self.out_width) == (self.height, self.width);
        let fits = self.stride == 1 && centred && same_size && self.taps() > 1;
        let some = self.out_pixels() * channels * outputs > 0;
        (fits && some && channels.is_multiple_of(W::DEPTHS)).then_some(direct::DirectConvolution {
            batch: self.batch,
            height: self.height,
            width: self.width,
            channels,
            outputs,
            filter: direct::Filter::Centred(self.kh, self.kw),
        })
    }

    /// The windows of output pixels `range`: where each begins to read the picture.
    fn windows(&self, range: Range<usize>) -> Vec<Window> {
        let at = |b: usize, y: usize, x: usize| Window {
            first: b * self.height * self.width,
            y: (y * self.stride) as isize - self.top() as isize,
            x: (x * self.stride) as isize - self.left() as isize,
        };
        walk(range, self.out_height, self.out_width)
            .map(|(b, y, x)| at(b, y, x))
            .collect()
    }

    /// Where a window reads through tap `(ky, kx)`: an offset into the picture, or padding.
    fn source(&self, window: Window, ky: usize, kx: usize) -> Option<usize> {
        // A negative coordinate wraps to one that is too large.
        let (y, x) = ((window.y + ky as isize) as usize, (window.x + kx as isize) as usize);
        (y < self.height && x < self.width).then(|| (window.first + y * self.width + x) * self.inputs)
    }

    /// The windows of input pixels `range` on the gradient: which outputs read each.
    fn readers(&self, range: Range<usize>) -> Vec<Window> {
        let at = |b: usize, y: usize, x: usize| Window {
            first: b * self.out_height * self.out_width,
            y: (y + self.top()) as isize,
            x: (x + self.left()) as isize,
        };
        walk(range, self.height, self.width)
            .map(|(b, y, x)| at(b, y, x))
            .collect()
    }

    /// The output pixel that reads an input pixel through tap `(ky, kx)`: an offset into the gradient.
    fn reader(&self, window: Window, ky: usize, kx: usize) -> Option<usize> {
        let (mut y, mut x) = ((window.y - ky as isize) as usize, (window.x - kx as isize) as usize);
        if self.stride > 1 {
            if window.y < ky as isize || window.x < kx as isize || y % self.stride != 0 || x % self.stride != 0 {
                return None;
            }
            (y, x) = (y / self.stride, x / self.stride);
        }
        (y < self.out_height && x < self.out_width).then(|| (window.first + y * self.out_width + x) * self.outputs)
    }
}

/// A pixel's place in the picture that is gathered from: divisions are made once a pixel, not once a tap.
#[derive(Clone, Copy)]
struct Window {
    /// First pixel of its sample.
    first: usize,
    y: isize,
    x: isize,
}

/// `(sample, row, column)` of consecutive pixels.
fn walk(range: Range<usize>, height: usize, width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let rest = range.start % (height * width).max(1);
    let (mut b, mut y, mut x) = (
        range.start / (height * width).max(1),
        rest / width.max(1),
        rest % width.max(1),
    );
    range.map(move |_| {
        let here = (b, y, x);
        x += 1;
        if x == width {
            (y, x) = (y + 1, 0);
        }
        if y == height {
            (b, y) = (b + 1, 0);
        }
        here
    })
}

/// Left matrix whose row r, depth (tap, channel) is `data[at(windows[r], tap) + channel]`, or zero.
struct Gather<'a, W, F> {
    data: &'a [f32],
    channels: usize,
    kw: usize,
    zeros: Vec<f32>,
    windows: W,
    at: F,
}

impl<W, F> Gather<'_, W, F>
where
    W: Fn(Range<usize>) -> Vec<Window> + Sync,
    F: Fn(Window, usize, usize) -> Option<usize> + Sync,
{
    /// `put(panel, depths, strips)` for each panel of `mr` rows and each run of channels of one tap in the depths `ks`,
    /// counted from their first.
    fn runs(
        &self,
        rows: Range<usize>,
        ks: Range<usize>,
        mr: usize,
        mut put: impl FnMut(usize, Range<usize>, &[&[f32]]),
    ) {
        let windows = (self.windows)(rows);
        let mut strips: Vec<&[f32]> = Vec::with_capacity(mr);
        let mut k = ks.start;
        while k < ks.end {
            let (tap, channel) = (k / self.channels, k % self.channels);
            let len = (self.channels - channel).min(ks.end - k);
            let (ky, kx) = (tap / self.kw, tap % self.kw);
            for (panel, windows) in windows.chunks(mr).enumerate() {
                strips.clear();
                for window in windows {
                    let strip = match (self.at)(*window, ky, kx) {
                        Some(offset) => &self.data[offset + channel..][..len],
                        None => &self.zeros[..len],
                    };
                    strips.push(strip);
                }
                let first = k - ks.start;
                put(panel, first..first + len, &strips);
            }
            k += len;
        }
    }
}

impl<W, F> Left for Gather<'_, W, F>
where
    W: Fn(Range<usize>) -> Vec<Window> + Sync,
    F: Fn(Window, usize, usize) -> Option<usize> + Sync,
{
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]) {
        let depth = ks.len();
        self.runs(rows, ks, mr, |panel, run, strips| {
            let out = &mut out[panel * mr * depth..][..mr * depth];
            interleave(strips, mr, &mut out[run.start * mr..run.end * mr]);
        });
    }

    fn pack_pairs(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [u32], space: &mut Vec<f32>) {
        let half = ks.len().div_ceil(2);
        if self.channels.is_multiple_of(2) {
            // Every run then begins and ends between pairs.
            self.runs(rows, ks, mr, |panel, run, strips| {
                let out = &mut out[panel * mr * half..][..mr * half];
                interleave_pairs(strips, mr, &mut out[run.start / 2 * mr..run.end / 2 * mr], space);
            });
        } else {
            pairs_of_values(self, rows, ks, mr, out, space);
        }
    }
}

/// `[m, k] x [k, n]`, the left matrix gathered from `picture` (channels last) tap by tap.
fn gather_product(
    s: &ConvolutionSizes,
    [m, n, k]: [usize; 3],
    picture: &Tensor,
    windows: impl Fn(Range<usize>) -> Vec<Window> + Sync,
    at: impl Fn(Window, usize, usize) -> Option<usize> + Sync,
    packed: &Packed,
    epilogue: &Epilogue,
) -> Vec<f32> {
    let (data, channels) = (picture.data(), picture.dim(-1));
    if s.is_pointwise() {
        return gemm::gemm(m, n, k, &gemm::Rows { data, k }, packed, epilogue);
    }
    let left = Gather {
        data,
        channels,
        kw: s.kw,
        zeros: vec![0.0; channels],
        windows,
        at,
    };
    gemm::gemm(m, n, k, &left, packed, epilogue)
}

pub(crate) fn forward(
    s: &ConvolutionSizes,
    x: &Tensor,
    weight: &Param,
    bias: Option<&Tensor>,
    act: Activation,
    residual: Option<&Tensor>,
) -> Tensor {
    let (m, n, k) = (s.out_pixels(), s.outputs, s.taps() * s.inputs);
    let out_shape = [s.batch, s.out_height, s.out_width, s.outputs];
    assert!(
        residual.is_none_or(|r| r.shape() == out_shape),
        "conv2d: residual shape"
    );
    let epilogue = Epilogue {
        bias: bias.map(Tensor::data),
        act,
        residual: residual.map(Tensor::data),
    };
    // Not in training, where the weight changes each time.
    if weight.dtype() == DType::BF16
        && let Some(shape) = s.direct::<Pair>(s.inputs, s.outputs).filter(winograd::suits)
    {
        let panels = weight.packed(WINOGRAD, |w, _| winograd::weight_panels(w));
        return Tensor::from_vec(winograd::convolve(&shape, x.data(), &panels, &epilogue), &out_shape);
    }
    let packed = weight.panels();
    let direct = match &*packed {
        Packed::F32(panels) => s
            .direct::<f32>(s.inputs, s.outputs)
            .map(|shape| direct::convolve(&shape, x.data(), panels, &epilogue)),
        Packed::Bf16(panels) => s
            .direct::<Pair>(s.inputs, s.outputs)
            .map(|shape| direct::convolve(&shape, x.data(), panels, &epilogue)),
    };
    let out = direct.unwrap_or_else(|| {
        let (windows, at) = (|rows| s.windows(rows), |window, ky, kx| s.source(window, ky, kx));
        gather_product(s, [m, n, k], x, windows, at, &packed, &epilogue)
    });
    Tensor::from_vec(out, &out_shape)
}

/// Whether [`forward_doubled`] takes a picture of so many channels in products of `dtype`.
pub(crate) fn doubles(channels: usize, dtype: DType) -> bool {
    dtype == DType::F32 || channels.is_multiple_of(Pair::DEPTHS)
}

/// A 3x3 convolution, one pixel of padding, of the picture doubled by repetition. In bf16 it is the sums of weights that are
/// rounded.
pub(crate) fn forward_doubled(x: &Tensor, weight: &Param, bias: Option<&Tensor>) -> Tensor {
    let (&[batch, height, width, channels], &[outputs, inputs, 3, 3]) = (x.shape(), &weight.shape()[..]) else {
        panic!("a doubled convolution wants x [B,H,W,C] and weight [O,C,3,3]");
    };
    assert_eq!(channels, inputs, "a doubled convolution: x {:?}", x.shape());
    let packed = weight.packed(DOUBLED, |w, dtype| {
        Packed::new(doubled_panels(w.data(), inputs, outputs), 4 * inputs, dtype)
    });
    let shape = direct::DirectConvolution {
        batch,
        height,
        width,
        channels,
        outputs,
        filter: direct::Filter::Doubled,
    };
    let epilogue = Epilogue {
        bias: bias.map(Tensor::data),
        ..Epilogue::NONE
    };
    let out = match &*packed {
        Packed::F32(panels) => direct::convolve(&shape, x.data(), panels, &epilogue),
        Packed::Bf16(panels) => direct::convolve(&shape, x.data(), panels, &epilogue),
    };
    Tensor::from_vec(out, &[batch, 2 * height, 2 * width, outputs])
}

/// `weight` `[outputs, inputs, 3, 3]` as [`direct::convolve`] wants it for a doubled picture.
fn doubled_panels(weight: &[f32], inputs: usize, outputs: usize) -> Panels<f32> {
    let block = kernel().for_columns(outputs);
    let (nr, padded) = (block.nr, outputs.next_multiple_of(block.nr));
    let words = pack_panels(4 * padded, 4 * inputs, nr, |cols, panel| {
        let (part, first) = (cols.start / padded, cols.start % padded);
        for (tap, values) in panel.chunks_exact_mut(inputs * nr).enumerate() {
            let rows = direct::doubled_taps(part / 2, tap / 2);
            let columns = direct::doubled_taps(part % 2, tap % 2);
            for (i, values) in values.chunks_exact_mut(nr).enumerate() {
                for (value, o) in values.iter_mut().zip(first..outputs) {
                    let kernel = &weight[(o * inputs + i) * 9..][..9];
                    let sums = rows.clone().map(|ky| &kernel[3 * ky..][columns.clone()]);
                    *value = sums.flatten().sum();
                }
            }
        }
    });
    Panels { block, words }
}

pub(crate) fn grad_input(s: &ConvolutionSizes, g: &Tensor, weight: &Param) -> Tensor {
    let (m, n, k) = (s.batch * s.height * s.width, s.inputs, s.taps() * s.outputs);
    let direct = match weight.products_dtype() {
        DType::F32 => s.direct::<f32>(s.outputs, s.inputs),
        _ => s.direct::<Pair>(s.outputs, s.inputs),
    };
    let usage = if direct.is_some() { BACKWARD_DIRECT } else { BACKWARD };
    let packed = weight.packed(usage, |w, dtype| {
        let values = pack_right(n, k, |cols, nr, panel| {
            for o in 0..s.outputs {
                for t in 0..s.taps() {
                    let tap = if direct.is_some() { s.taps() - 1 - t } else { t };
                    for (value, i) in panel[(t * s.outputs + o) * nr..].iter_mut().zip(cols.clone()) {
                        *value = w.data()[(o * s.inputs + i) * s.taps() + tap];
                    }
                }
            }
        });
        Packed::new(values, k, dtype)
    });
    let out = match (direct, &*packed) {
        (Some(shape), Packed::F32(panels)) => direct::convolve(&shape, g.data(), panels, &Epilogue::NONE),
        (Some(shape), Packed::Bf16(panels)) => direct::convolve(&shape, g.data(), panels, &Epilogue::NONE),
        (None, _) => gather_product(
            s,
            [m, n, k],
            g,
            |rows| s.readers(rows),
            |window, ky, kx| s.reader(window, ky, kx),
            &packed,
            &Epilogue::NONE,
        ),
    };
    Tensor::from_vec(out, &[s.batch, s.height, s.width, s.inputs])
}

/// Left matrix of the weight gradient: row (tap, input channel), depth = output pixels.
struct GatherTransposed<'a> {
    shape: &'a ConvolutionSizes,
    data: &'a [f32],
}

impl Left for GatherTransposed<'_> {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]) {
        let s = self.shape;
        let panel = mr * ks.len();
        let windows = s.windows(ks);
        out.fill(0.0);
        let mut row = rows.start;
        while row < rows.end {
            let (tap, channel) = (row / s.inputs, row % s.inputs);
            let len = (s.inputs - channel).min(rows.end - row);
            let (ky, kx) = (tap / s.kw, tap % s.kw);
            let parts = parts(row - rows.start, len, mr);
            for (k, window) in windows.iter().enumerate() {
                if let Some(offset) = s.source(*window, ky, kx) {
                    let values = &self.data[offset + channel..][..len];
                    for part in &parts {
                        let to = part.panel * panel + k * mr + part.column;
                        copy_few(&values[part.first..][..part.len], &mut out[to..][..part.len]);
                    }
                }
            }
            row += len;
        }
    }
}

/// What of a run of rows lies in one panel of `mr`.
struct Part {
    panel: usize,
    column: usize,
    first: usize,
    len: usize,
}

/// The parts of `len` rows from `start` on.
fn parts(start: usize, len: usize, mr: usize) -> Vec<Part> {
    let mut parts = Vec::with_capacity(len / mr + 2);
    let mut first = 0;
    while first < len {
        let (panel, column) = ((start + first) / mr, (start + first) % mr);
        let part = Part {
            panel,
            column,
            first,
            len: (mr - column).min(len - first),
        };
        first += part.len;
        parts.push(part);
    }
    parts
}

/// `dtype` is what both are rounded to.
pub(crate) fn grad_weight(s: &ConvolutionSizes, g: &Tensor, x: &Tensor, dtype: DType) -> Tensor {
    let (m, n, k) = (s.taps() * s.inputs, s.outputs, s.out_pixels());
    let packed = Packed::new(pack_right_rows(g.data(), n, k), k, dtype);
    let left = GatherTransposed {
        shape: s,
        data: x.data(),
    };
    let by_tap = gemm::gemm(m, n, k, &left, &packed, &Epilogue::NONE);
    // [tap, input, output] to [output, input, tap], a cache line of outputs at a time.
    const LINE: usize = 16;
    let mut out = zeros(m * n);
    out.par_chunks_mut(LINE * m).enumerate().for_each(|(line, block)| {
        let outputs = line * LINE..n.min((line + 1) * LINE);
        for i in 0..s.inputs {
            for t in 0..s.taps() {
                let values = &by_tap[(t * s.inputs + i) * n..][outputs.clone()];
                for (row, value) in block.chunks_exact_mut(m).zip(values) {
                    row[i * s.taps() + t] = *value;
                }
            }
        }
    });
    Tensor::from_vec(out, &[s.outputs, s.inputs, s.kh, s.kw])
}
