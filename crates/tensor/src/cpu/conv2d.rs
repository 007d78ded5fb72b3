//! Convolution: directly where that is possible ([`direct`]), or as an implicit GEMM, for which the rows of the left matrix are
//! gathered from the channels-last picture while they are packed, tap by tap, so im2col is never stored.

use crate::cpu::direct::{self, DirectConvolution};
use crate::cpu::gemm::{self, Left, Rows};
use crate::cpu::interleave::interleave;
use crate::cpu::kernel::{Factor, Pair, kernel};
use crate::cpu::pack::{Panels, pack_panels, pack_right};
use crate::cpu::packed::Packed;
use crate::cpu::parallel::zeros;
use crate::cpu::product::product;
use crate::cpu::sums;
use crate::cpu::tile::Epilogue;
use crate::cpu::weight_gradient::weight_gradient;
use crate::cpu::weights;
use crate::cpu::winograd;
use crate::ops::ConvolutionSizes;
use crate::{Activation, DType, Param, Tensor};
use rayon::prelude::*;
use std::convert::Infallible;
use std::ops::Range;

/// Packed forms beside that of the forward pass. Which of these three a gradient wants depends on the picture's size too.
const BACKWARD: u8 = 1;
const BACKWARD_DOUBLING: u8 = 5;
const BACKWARD_FOLDED: u8 = 6;
/// The four kernels for a doubled picture.
const DOUBLED: u8 = 2;
/// The kernel of the gradient of that.
const DOUBLED_BACKWARD: u8 = 3;
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

    /// Whether the results have the picture's size, each from the pixels around it.
    fn keeps_size(&self) -> bool {
        let centred = (self.top(), self.left()) == (self.kh / 2, self.kw / 2) && self.kh % 2 == 1 && self.kw % 2 == 1;
        let same_size = (self.out_height, self.out_width) == (self.height, self.width);
        self.stride == 1 && centred && same_size
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

/// Left matrix whose row r is output pixel r, its depth (tap, channel).
struct Gather<'a> {
    shape: &'a ConvolutionSizes,
    data: &'a [f32],
    /// As many as there are channels.
    zeros: Vec<f32>,
}

impl Left for Gather<'_> {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]) {
        let (s, depth) = (self.shape, ks.len());
        let windows = s.windows(rows);
        let mut strips: Vec<&[f32]> = Vec::with_capacity(mr);
        let mut k = ks.start;
        while k < ks.end {
            let (tap, channel) = (k / s.inputs, k % s.inputs);
            let len = (s.inputs - channel).min(ks.end - k);
            for (windows, out) in windows.chunks(mr).zip(out.chunks_exact_mut(mr * depth)) {
                strips.clear();
                for window in windows {
                    let strip = match s.source(*window, tap / s.kw, tap % s.kw) {
                        Some(offset) => &self.data[offset + channel..][..len],
                        None => &self.zeros[..len],
                    };
                    strips.push(strip);
                }
                let first = k - ks.start;
                interleave(&strips, mr, &mut out[first * mr..(first + len) * mr]);
            }
            k += len;
        }
    }
}

/// `epilogue(picture * panels)`, directly, for weights of either kind.
fn convolve(shape: &DirectConvolution, picture: &[f32], packed: &Packed, epilogue: &Epilogue) -> Vec<f32> {
    match packed {
        Packed::F32(panels) => direct::convolve(shape, picture, panels, epilogue),
        Packed::Bf16(panels) => direct::convolve(shape, picture, panels, epilogue),
        Packed::Winograd(panels) => winograd::convolve(shape, picture, panels, epilogue),
        Packed::Int8(panels) => direct::convolve(shape, picture, panels, epilogue),
        Packed::Int4(panels) => direct::convolve(shape, picture, panels, epilogue),
    }
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
    let direct = DirectConvolution::forward(s);
    // Not in training, where the weight changes each time.
    let by_sums = winograd::fits(&direct) && weight.dtype() == DType::BF16 && weight.bits().is_none();
    let packed = if by_sums && (weight.is_summed() || winograd::suits(&direct)) {
        weight.sums(WINOGRAD)
    } else {
        weight.panels()
    };
    let data = x.data();
    let out = if s.is_pointwise() {
        product(data, [n, k], &packed, &epilogue)
    } else if k > 0 && (s.keeps_size() || k <= gemm::KC || !matches!(*packed, Packed::F32(_))) {
        convolve(&direct, data, &packed, &epilogue)
    } else {
        let zeros = vec![0.0; s.inputs];
        gemm::gemm(m, n, k, &Gather { shape: s, data, zeros }, &packed, &epilogue)
    };
    Tensor::from_vec(out, &out_shape)
}

/// `value(depth, column, tap)` as a right matrix `[taps, depths, columns]`, the depths filled up to whole words with zeros.
fn pack_taps(
    [depths, columns, taps]: [usize; 3],
    dtype: DType,
    value: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Packed {
    let padded = whole_words(depths, dtype);
    let values = pack_right(columns, taps * padded, |cols, nr, panel| {
        for depth in 0..depths {
            for tap in 0..taps {
                for (to, column) in panel[(tap * padded + depth) * nr..].iter_mut().zip(cols.clone()) {
                    *to = value(depth, column, tap);
                }
            }
        }
    });
    Packed::new(values, taps * padded, dtype)
}

/// The channels that `channels` are filled up to.
fn whole_words(channels: usize, dtype: DType) -> usize {
    match dtype {
        DType::F32 => channels.next_multiple_of(<f32 as Factor>::DEPTHS),
        _ => channels.next_multiple_of(<Pair as Factor>::DEPTHS),
    }
}

/// Four 2x2 kernels of `[depths, columns]`, `value(part, tap, depth, column)` with the row and then the column of each, packed as
/// [`direct::convolve`] wants them for results of twice the size.
fn pack_parts(
    [depths, columns]: [usize; 2],
    dtype: DType,
    value: impl Fn([usize; 2], [usize; 2], usize, usize) -> f32 + Sync,
) -> Packed {
    let block = kernel().for_columns(columns);
    let (nr, padded, depths_padded) = (block.nr, columns.next_multiple_of(block.nr), whole_words(depths, dtype));
    let words = pack_panels(4 * padded, 4 * depths_padded, nr, |cols, panel| {
        let (part, first) = (cols.start / padded, cols.start % padded);
        for (tap, values) in panel.chunks_exact_mut(depths_padded * nr).enumerate() {
            for (depth, values) in values.chunks_exact_mut(nr).take(depths).enumerate() {
                for (to, column) in values.iter_mut().zip(first..columns) {
                    *to = value([part / 2, part % 2], [tap / 2, tap % 2], depth, column);
                }
            }
        }
    });
    let words = words.into();
    Packed::new(Panels { block, words }, 4 * depths_padded, dtype)
}

/// The same in bytes.
fn pack_int8_parts(
    [depths, columns]: [usize; 2],
    value: impl Fn([usize; 2], [usize; 2], usize, usize) -> f32 + Sync,
) -> Packed {
    let block = kernel().for_columns(columns);
    let padded = columns.next_multiple_of(block.nr);
    let Ok(packed) = weights::pack_bytes::<Infallible>(block, [4 * padded, depths, 4], |range, bytes, scales| {
        let mut row = vec![0.0; 4 * depths];
        for (part, column) in range.map(|at| (at / padded, at % padded)) {
            for (at, to) in row.iter_mut().enumerate() {
                let tap = at % 4;
                let inside = column < columns;
                *to = if inside {
                    value([part / 2, part % 2], [tap / 2, tap % 2], at / 4, column)
                } else {
                    0.0
                };
            }
            scales.push(weights::quantize_row(&row, bytes));
        }
        Ok(())
    });
    packed
}

/// A 3x3 convolution, one pixel of padding, of the picture doubled by repetition.
pub(crate) fn forward_doubled(x: &Tensor, weight: &Param, bias: Option<&Tensor>) -> Tensor {
    let (&[batch, height, width, channels], &[outputs, inputs, 3, 3]) = (x.shape(), &weight.shape()[..]) else {
        panic!("a doubled convolution wants x [B,H,W,C] and weight [O,C,3,3]");
    };
    assert_eq!(channels, inputs, "a doubled convolution: x {:?}", x.shape());
    // Of 4 bits too: sums of weights are not of 4 bits.
    let in_bytes = weight.bits().is_some();
    let packed = weight.packed(DOUBLED, |w, dtype| {
        let value = |part: [usize; 2], tap: [usize; 2], i: usize, o: usize| {
            let kernel = &w.data()[(o * inputs + i) * 9..][..9];
            let [rows, columns] = [0, 1].map(|axis| direct::doubled_taps(part[axis], tap[axis]));
            let sums = rows.map(|ky| &kernel[3 * ky..][columns.clone()]);
            sums.flatten().sum()
        };
        if in_bytes {
            pack_int8_parts([inputs, outputs], value)
        } else {
            pack_parts([inputs, outputs], dtype, value)
        }
    });
    let shape = DirectConvolution::doubling([batch, height, width, channels], outputs);
    let epilogue = Epilogue {
        bias: bias.map(Tensor::data),
        ..Epilogue::NONE
    };
    let out = convolve(&shape, x.data(), &packed, &epilogue);
    Tensor::from_vec(out, &[batch, 2 * height, 2 * width, outputs])
}

/// The convolution of stride 2 that a doubled one of `x` `[batch, height, width, channels]` to `outputs` channels is the gradient
/// of: from the gradient of its results to that of `x`. Row u of its kernel of 4x4 is the sum of the rows [`TRANSPOSED`]`[u]`.
fn transposed(x: &[usize], outputs: usize) -> ConvolutionSizes {
    ConvolutionSizes {
        batch: x[0],
        height: 2 * x[1],
        width: 2 * x[2],
        inputs: outputs,
        outputs: x[3],
        kh: 4,
        kw: 4,
        out_height: x[1],
        out_width: x[2],
        stride: 2,
        padding: [1; 4],
    }
}

const TRANSPOSED: [Range<usize>; 4] = [2..3, 1..3, 0..2, 0..1];

/// The gradient of [`forward_doubled`] with respect to `x` of shape `x`.
pub(crate) fn grad_input_doubled(x: &[usize], g: &Tensor, weight: &Param) -> Tensor {
    let (inputs, outputs) = (x[3], g.dim(-1));
    let packed = weight.packed(DOUBLED_BACKWARD, |w, dtype| {
        pack_taps([outputs, inputs, 16], dtype, |o, i, tap| {
            let kernel = &w.data()[(o * inputs + i) * 9..][..9];
            let [rows, columns] = [tap / 4, tap % 4].map(|u| TRANSPOSED[u].clone());
            rows.flat_map(|ky| &kernel[3 * ky..][columns.clone()]).sum()
        })
    });
    let shape = DirectConvolution::forward(&transposed(x, outputs));
    Tensor::from_vec(convolve(&shape, g.data(), &packed, &Epilogue::NONE), x)
}

/// The gradient of [`forward_doubled`] with respect to its weight.
pub(crate) fn grad_weight_doubled(g: &Tensor, x: &Tensor, dtype: DType) -> Tensor {
    let (inputs, outputs) = (x.dim(-1), g.dim(-1));
    // [inputs, outputs, 4, 4]
    let (sums, _) = weight_gradient(&transposed(x.shape(), outputs), g.data(), x.data(), dtype);
    let mut out = zeros(outputs * inputs * 9);
    for (at, kernel) in out.chunks_exact_mut(9).enumerate() {
        let (o, i) = (at / inputs, at % inputs);
        for (u, sum) in sums[(i * outputs + o) * 16..][..16].iter().enumerate() {
            for ky in TRANSPOSED[u / 4].clone() {
                for kx in TRANSPOSED[u % 4].clone() {
                    kernel[3 * ky + kx] += sum;
                }
            }
        }
    }
    Tensor::from_vec(out, &[outputs, inputs, 3, 3])
}

/// How the gradient with respect to the picture is computed.
enum Transposed {
    /// A product of matrices.
    Pointwise,
    /// As a convolution with the taps in reverse.
    Reversed(DirectConvolution),
    /// As four convolutions.
    Doubling(DirectConvolution),
    /// As a product that gives each tap's part, and their sum.
    Folded,
}

impl Transposed {
    fn of(s: &ConvolutionSizes) -> Self {
        let picture = [s.batch, s.out_height, s.out_width, s.outputs];
        let doubles = s.stride == 2 && (s.height, s.width) == (2 * s.out_height, 2 * s.out_width);
        // Each of the two results of a place reads two rows: see `tap_of_part`.
        let fits = |before: usize, kernel: usize| before < 2 && kernel <= before + 3;
        if s.is_pointwise() {
            Self::Pointwise
        } else if s.stride == 1 && s.top() < s.kh && s.left() < s.kw {
            Self::Reversed(DirectConvolution {
                height: s.out_height,
                width: s.out_width,
                channels: s.outputs,
                outputs: s.inputs,
                before: [s.kh - 1 - s.top(), s.kw - 1 - s.left()],
                places: [s.height, s.width],
                ..DirectConvolution::forward(s)
            })
        } else if doubles && fits(s.top(), s.kh) && fits(s.left(), s.kw) {
            Self::Doubling(DirectConvolution::doubling(picture, s.inputs))
        } else {
            Self::Folded
        }
    }

    /// Of the weight's packed form.
    fn usage(&self) -> u8 {
        match self {
            Self::Pointwise | Self::Reversed(_) => BACKWARD,
            Self::Doubling(_) => BACKWARD_DOUBLING,
            Self::Folded => BACKWARD_FOLDED,
        }
    }
}

/// The tap of a kernel of `size` under a stride of 2, `before` zeros before the picture, through which the pixel of parity `part`
/// is read by the result at `tap` of the two beside it.
fn tap_of_part(part: usize, tap: usize, before: usize, size: usize) -> Option<usize> {
    (before + part + 2 * (1 - part))
        .checked_sub(2 * tap)
        .filter(|k| *k < size)
}

pub(crate) fn grad_input(s: &ConvolutionSizes, g: &Tensor, weight: &Param) -> Tensor {
    let way = Transposed::of(s);
    let [inputs, outputs, taps] = [s.inputs, s.outputs, s.taps()];
    let packed = weight.packed(way.usage(), |w, dtype| {
        let value = |o: usize, i: usize, t: usize| w.data()[(o * inputs + i) * taps + t];
        match way {
            Transposed::Doubling(_) => pack_parts([outputs, inputs], dtype, |part, tap, o, i| {
                let ky = tap_of_part(part[0], tap[0], s.top(), s.kh);
                let kx = tap_of_part(part[1], tap[1], s.left(), s.kw);
                ky.zip(kx).map_or(0.0, |(ky, kx)| value(o, i, ky * s.kw + kx))
            }),
            Transposed::Folded => pack_taps([outputs, taps * inputs, 1], dtype, |o, column, _| {
                value(o, column % inputs, column / inputs)
            }),
            _ => pack_taps([outputs, inputs, taps], dtype, |o, i, t| value(o, i, taps - 1 - t)),
        }
    });
    let rows = Rows {
        data: g.data(),
        k: outputs,
    };
    let product = |n: usize| gemm::gemm(s.out_pixels(), n, outputs, &rows, &packed, &Epilogue::NONE);
    let out = match &way {
        Transposed::Reversed(shape) | Transposed::Doubling(shape) if outputs > 0 => {
            convolve(shape, g.data(), &packed, &Epilogue::NONE)
        }
        Transposed::Pointwise => product(inputs),
        _ => fold(s, &product(taps * inputs)),
    };
    Tensor::from_vec(out, &[s.batch, s.height, s.width, inputs])
}

/// The sums of what the taps `[out pixels, taps, inputs]` give to the pixels of the picture.
fn fold(s: &ConvolutionSizes, parts: &[f32]) -> Vec<f32> {
    let sample = s.height * s.width * s.inputs;
    let mut out = zeros(s.batch * sample);
    if sample * s.out_pixels() * s.taps() == 0 {
        return out;
    }
    let row = s.taps() * s.inputs;
    let samples = parts.par_chunks_exact(s.out_height * s.out_width * row);
    out.par_chunks_exact_mut(sample).zip(samples).for_each(|(out, parts)| {
        let windows = s.windows(0..s.out_height * s.out_width);
        for (window, parts) in windows.into_iter().zip(parts.chunks_exact(row)) {
            for (tap, part) in parts.chunks_exact(s.inputs).enumerate() {
                if let Some(at) = s.source(window, tap / s.kw, tap % s.kw) {
                    out[at..at + s.inputs]
                        .iter_mut()
                        .zip(part)
                        .for_each(|(sum, x)| *sum += x);
                }
            }
        }
    });
    out
}

/// Of the weight and of the bias, as they are wanted. `dtype` is what both are rounded to for the products.
pub(crate) fn grad_weight(
    s: &ConvolutionSizes,
    g: &Tensor,
    x: &Tensor,
    dtype: DType,
    [weight, bias]: [bool; 2],
) -> [Option<Tensor>; 2] {
    if !weight {
        return [
            None,
            bias.then(|| Tensor::from_vec(sums::of_rows(g.data(), s.outputs), &[s.outputs])),
        ];
    }
    let (out, sums) = weight_gradient(s, x.data(), g.data(), dtype);
    [
        Some(Tensor::from_vec(out, &[s.outputs, s.inputs, s.kh, s.kw])),
        bias.then(|| Tensor::from_vec(sums, &[s.outputs])),
    ]
}
