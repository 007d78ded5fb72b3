//! Launchers of reduce.cu.

use super::gpu::{Gpu, THREADS, args};
use super::memory::Array;
use crate::{DType, Tensor};
use std::sync::Arc;

/// In the order of the kernel.
#[derive(Clone, Copy)]
pub(crate) enum Loss {
    Squared,
    PseudoHuber { c: f32 },
    Absolute,
}

impl Loss {
    fn code(self) -> (usize, f32) {
        match self {
            Self::Squared => (0, 0.0),
            Self::PseudoHuber { c } => (1, c),
            Self::Absolute => (2, 0.0),
        }
    }
}

impl Gpu {
    /// `scale` times the sums over the rows of each of `batch` samples: f32 `[batch, C]`.
    pub(super) fn sum_columns(&self, x: &Arc<Array>, batch: usize, channels: usize, scale: f32) -> Array {
        let rows = x.len() / (batch * channels).max(1);
        let tiles = channels.div_ceil(32);
        let splits = self.splits(rows, tiles * batch);
        let partial = self.empty(batch * splits * channels, DType::F32);
        let grid = [tiles, splits, batch];
        let args = args![x, &partial, rows, channels, splits];
        self.launch("reduce", "column_sums", x.dtype(), grid, THREADS, args);
        self.sum_partials(&partial, batch, channels, splits, scale)
    }

    /// `[batch, splits, channels]` to `[batch, channels]`.
    pub(super) fn sum_partials(
        &self,
        partial: &Array,
        batch: usize,
        channels: usize,
        splits: usize,
        scale: f32,
    ) -> Array {
        let n = batch * channels;
        let out = self.empty(n, DType::F32);
        let args = args![partial, &out, n, channels, splits, scale];
        self.each("reduce", "sum_partials", DType::F32, n, args);
        out
    }

    /// Sums over all axes but the last: f32 `[C]`.
    pub fn sum_rows(&self, x: &Tensor) -> Tensor {
        let channels = x.dim(-1);
        let x = self.array(x, self.common_dtype(&[x]));
        Tensor::from_array(self.sum_columns(&x, 1, channels, 1.0), &[channels])
    }

    /// `scale` times the sums over the middle axes of `[B, ..., C]`: `[B, C]`, stored as activations are.
    pub fn sum_samples(&self, x: &Tensor, scale: f32) -> Tensor {
        let (batch, channels) = (x.dim(0), x.dim(-1));
        let sums = Arc::new(self.sum_columns(&self.stored(x), batch, channels, scale));
        Tensor::from_shared(self.cast(&sums, self.dtype()), &[batch, channels])
    }

    /// The sum over the samples of `[B, L, D]` as the first rows of f32 `[rows, D]`, zeros below.
    pub fn sum_batch(&self, x: &Tensor, rows: usize) -> Tensor {
        let (length, width) = (x.dim(1), x.dim(2));
        let sums = self.sum_columns(&self.stored(x), 1, length * width, 1.0);
        let out = self.zeros(rows * width, DType::F32);
        self.copy_columns(&sums, &out, 1, length * width, [length * width, 0], [rows * width, 0]);
        Tensor::from_array(out, &[rows, width])
    }

    /// `mean_b weight[b] · mean value(x - target)`, an f32 scalar.
    pub fn loss(&self, kind: Loss, x: &Tensor, target: &Tensor, weight: &[f32]) -> Tensor {
        let (n, (code, c)) = (x.numel(), kind.code());
        let (x, target, weights) = (self.stored(x), self.stored(target), self.upload(weight));
        let blocks = self.blocks(n);
        let partial = self.empty(blocks, DType::F32);
        let args = args![code, &x, &target, &weights, &partial, n, n / weight.len(), c];
        self.launch("reduce", "loss_forward", self.dtype(), [blocks, 1, 1], THREADS, args);
        Tensor::from_array(self.sum_all(&partial, 1.0 / n as f32), &[])
    }

    /// `scale` times the sum of f32 values: one value.
    pub(super) fn sum_all(&self, values: &Array, scale: f32) -> Array {
        let out = self.empty(1, DType::F32);
        let args = args![values, &out, values.len(), scale];
        self.launch("reduce", "sum_all", DType::F32, [1, 1, 1], THREADS, args);
        out
    }

    pub fn loss_backward(&self, kind: Loss, x: &Tensor, target: &Tensor, weight: &[f32], grad: &Tensor) -> Tensor {
        let (n, (code, c)) = (x.numel(), kind.code());
        let (from, target, weights) = (self.stored(x), self.stored(target), self.upload(weight));
        let (grad, dx) = (self.array(grad, DType::F32), self.empty(n, self.dtype()));
        let scale = 1.0 / n as f32;
        let args = args![
            code,
            &from,
            &target,
            &weights,
            &grad,
            &dx,
            n,
            n / weight.len(),
            c,
            scale
        ];
        self.each("reduce", "loss_backward", self.dtype(), n, args);
        Tensor::from_array(dx, x.shape())
    }
}
