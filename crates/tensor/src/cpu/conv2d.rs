//! Convolution as an implicit GEMM: the rows of the left matrix are gathered from the
//! channels-last picture while they are packed, tap by tap, so im2col is never stored.

use crate::cpu::gemm::{self, Epilogue, Left, interleave};
use crate::{Activation, Conv2d, Param, Tensor};
use std::ops::Range;

const FORWARD: u8 = 0;
const BACKWARD: u8 = 1;

/// All sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    batch: usize,
    height: usize,
    width: usize,
    inputs: usize,
    outputs: usize,
    kh: usize,
    kw: usize,
    out_height: usize,
    out_width: usize,
    stride: usize,
    top: usize,
    left: usize,
}

impl Shape {
    pub fn new(x: &[usize], weight: &[usize], geometry: Conv2d) -> Self {
        let ([batch, height, width, inputs], [outputs, weight_inputs, kh, kw]) = (x, weight) else {
            panic!("conv2d wants x [B,H,W,C] and weight [O,I,kh,kw], got {x:?} and {weight:?}");
        };
        assert_eq!(inputs, weight_inputs, "conv2d: x {x:?} does not fit weight {weight:?}");
        let [top, bottom, left, right] = geometry.padding;
        let fits = |size: usize, before: usize, after: usize, kernel: usize| {
            assert!(size + before + after >= kernel, "conv2d: kernel {kernel} is larger than the padded picture {x:?}");
            (size + before + after - kernel) / geometry.stride + 1
        };
        Self {
            batch: *batch,
            height: *height,
            width: *width,
            inputs: *inputs,
            outputs: *outputs,
            kh: *kh,
            kw: *kw,
            out_height: fits(*height, top, bottom, *kh),
            out_width: fits(*width, left, right, *kw),
            stride: geometry.stride,
            top,
            left,
        }
    }

    fn out_pixels(&self) -> usize {
        self.batch * self.out_height * self.out_width
    }

    fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// A 1x1 convolution that touches each pixel once is a plain matrix product.
    fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == 1 && (self.out_height, self.out_width) == (self.height, self.width)
    }

    /// Where output pixel `row` reads through tap `(ky, kx)`: an offset into the picture, or padding.
    fn source(&self, row: usize, ky: usize, kx: usize) -> Option<usize> {
        let (b, rest) = (row / (self.out_height * self.out_width), row % (self.out_height * self.out_width));
        let y = (rest / self.out_width * self.stride + ky).checked_sub(self.top)?;
        let x = (rest % self.out_width * self.stride + kx).checked_sub(self.left)?;
        (y < self.height && x < self.width).then(|| ((b * self.height + y) * self.width + x) * self.inputs)
    }

    /// The output pixel that reads input pixel `row` through tap `(ky, kx)`: an offset into the gradient.
    fn reader(&self, row: usize, ky: usize, kx: usize) -> Option<usize> {
        let (b, rest) = (row / (self.height * self.width), row % (self.height * self.width));
        let y = (rest / self.width + self.top).checked_sub(ky)?;
        let x = (rest % self.width + self.left).checked_sub(kx)?;
        if y % self.stride != 0 || x % self.stride != 0 {
            return None;
        }
        let (y, x) = (y / self.stride, x / self.stride);
        (y < self.out_height && x < self.out_width)
            .then(|| ((b * self.out_height + y) * self.out_width + x) * self.outputs)
    }
}

/// Left matrix whose row r, depth (tap, channel) is `data[at(r, tap) + channel]`, or zero.
struct Gather<'a, F> {
    data: &'a [f32],
    channels: usize,
    kw: usize,
    zeros: Vec<f32>,
    at: F,
}

impl<F: Fn(usize, usize, usize) -> Option<usize> + Sync> Left for Gather<'_, F> {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]) {
        let depth = ks.len();
        let mut strips: Vec<&[f32]> = Vec::with_capacity(mr);
        let mut k = ks.start;
        while k < ks.end {
            let (tap, channel) = (k / self.channels, k % self.channels);
            let len = (self.channels - channel).min(ks.end - k);
            for (p, panel) in out.chunks_exact_mut(mr * depth).enumerate() {
                strips.clear();
                let first = rows.start + p * mr;
                for row in first..rows.end.min(first + mr) {
                    let strip = match (self.at)(row, tap / self.kw, tap % self.kw) {
                        Some(offset) => &self.data[offset + channel..][..len],
                        None => &self.zeros[..len],
                    };
                    strips.push(strip);
                }
                interleave(&strips, mr, &mut panel[(k - ks.start) * mr..][..len * mr]);
            }
            k += len;
        }
    }
}

pub(crate) fn forward(
    s: &Shape,
    x: &Tensor,
    weight: &Param,
    bias: Option<&Tensor>,
    act: Activation,
    residual: Option<&Tensor>,
) -> Tensor {
    let (m, n, k) = (s.out_pixels(), s.outputs, s.taps() * s.inputs);
    let packed = weight.packed(FORWARD, |w| {
        gemm::pack_right(n, k, |cols, nr, panel| {
            for (j, o) in cols.enumerate() {
                for i in 0..s.inputs {
                    for t in 0..s.taps() {
                        panel[(t * s.inputs + i) * nr + j] = w.data()[(o * s.inputs + i) * s.taps() + t];
                    }
                }
            }
        })
    });
    let out_shape = [s.batch, s.out_height, s.out_width, s.outputs];
    assert!(residual.is_none_or(|r| r.shape() == out_shape), "conv2d: residual shape");
    let epilogue = Epilogue { bias: bias.map(Tensor::data), act, residual: residual.map(Tensor::data) };
    let mut out = vec![0.0; m * n];
    if s.is_pointwise() {
        gemm::gemm(m, n, k, &gemm::Rows { data: x.data(), k }, &packed, &epilogue, &mut out);
    } else {
        let at = |row, ky, kx| s.source(row, ky, kx);
        let left = Gather { data: x.data(), channels: s.inputs, kw: s.kw, zeros: vec![0.0; s.inputs], at };
        gemm::gemm(m, n, k, &left, &packed, &epilogue, &mut out);
    }
    Tensor::from_vec(out, &out_shape)
}

pub(crate) fn grad_input(s: &Shape, g: &Tensor, weight: &Param) -> Tensor {
    let (m, n, k) = (s.batch * s.height * s.width, s.inputs, s.taps() * s.outputs);
    let packed = weight.packed(BACKWARD, |w| {
        gemm::pack_right(n, k, |cols, nr, panel| {
            for (j, i) in cols.enumerate() {
                for o in 0..s.outputs {
                    for t in 0..s.taps() {
                        panel[(t * s.outputs + o) * nr + j] = w.data()[(o * s.inputs + i) * s.taps() + t];
                    }
                }
            }
        })
    });
    let mut out = vec![0.0; m * n];
    if s.is_pointwise() {
        gemm::gemm(m, n, k, &gemm::Rows { data: g.data(), k }, &packed, &Epilogue::NONE, &mut out);
    } else {
        let at = |row, ky, kx| s.reader(row, ky, kx);
        let left = Gather { data: g.data(), channels: s.outputs, kw: s.kw, zeros: vec![0.0; s.outputs], at };
        gemm::gemm(m, n, k, &left, &packed, &Epilogue::NONE, &mut out);
    }
    Tensor::from_vec(out, &[s.batch, s.height, s.width, s.inputs])
}

/// Left matrix of the weight gradient: row (tap, input channel), depth = output pixels.
struct GatherTransposed<'a> {
    shape: &'a Shape,
    data: &'a [f32],
}

impl Left for GatherTransposed<'_> {
    fn pack(&self, rows: Range<usize>, ks: Range<usize>, mr: usize, out: &mut [f32]) {
        let s = self.shape;
        for (p, panel) in out.chunks_exact_mut(mr * ks.len()).enumerate() {
            panel.fill(0.0);
            let mut row = rows.start + p * mr;
            let end = rows.end.min(row + mr);
            let mut column = 0;
            // A panel may straddle taps: each part of it is a run of channels of one tap.
            while row < end {
                let (tap, channel) = (row / s.inputs, row % s.inputs);
                let len = (s.inputs - channel).min(end - row);
                for (pixel, o) in ks.clone().zip(panel.chunks_exact_mut(mr)) {
                    if let Some(offset) = s.source(pixel, tap / s.kw, tap % s.kw) {
                        o[column..column + len].copy_from_slice(&self.data[offset + channel..][..len]);
                    }
                }
                row += len;
                column += len;
            }
        }
    }
}

pub(crate) fn grad_weight(s: &Shape, g: &Tensor, x: &Tensor) -> Tensor {
    let (m, n, k) = (s.taps() * s.inputs, s.outputs, s.out_pixels());
    let packed = gemm::pack_right_rows(g.data(), n, k);
    let mut by_tap = vec![0.0; m * n];
    gemm::gemm(m, n, k, &GatherTransposed { shape: s, data: x.data() }, &packed, &Epilogue::NONE, &mut by_tap);
    let mut out = vec![0.0; m * n];
    for (o, block) in out.chunks_exact_mut(m).enumerate() {
        for i in 0..s.inputs {
            for t in 0..s.taps() {
                block[i * s.taps() + t] = by_tap[(t * s.inputs + i) * n + o];
            }
        }
    }
    Tensor::from_vec(out, &[s.outputs, s.inputs, s.kh, s.kw])
}
