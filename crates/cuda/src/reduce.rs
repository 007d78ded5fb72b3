//! Launchers of reduce.cu.

use crate::gpu::{CudaGpu, THREADS, args};
use crate::memory::{Array, tensor};
use prima_tensor::gpu::{DeviceArray, Sums};
use prima_tensor::ops::Loss;
use prima_tensor::{DType, Tensor};
use std::sync::Arc;

/// Which loss, and its parameter, as the kernel reads them.
fn code(kind: Loss) -> (usize, f32) {
    match kind {
        Loss::Squared => (0, 0.0),
        Loss::PseudoHuber { c } => (1, c),
        Loss::Absolute => (2, 0.0),
    }
}

impl CudaGpu {
    /// `scale` times the sums over the rows of each of `batch` samples: f32 `[batch, C]`.
    pub(crate) fn sum_columns(&self, x: &Arc<Array>, batch: usize, channels: usize, scale: f32) -> Array {
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
    pub(crate) fn sum_partials(
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

    /// `scale` times the sum of f32 values: one value.
    pub(crate) fn sum_all(&self, values: &Array, scale: f32) -> Array {
        let out = self.empty(1, DType::F32);
        let args = args![values, &out, values.len(), scale];
        self.launch("reduce", "sum_all", DType::F32, [1, 1, 1], THREADS, args);
        out
    }
}

impl Sums for CudaGpu {
    fn sum_rows(&self, x: &Tensor) -> Tensor {
        let channels = x.dim(-1);
        let x = self.array(x, self.common_dtype(&[x]));
        tensor(self.sum_columns(&x, 1, channels, 1.0), &[channels])
    }

    fn sum_samples(&self, x: &Tensor, scale: f32) -> Tensor {
        let (batch, channels) = (x.dim(0), x.dim(-1));
        let sums = Arc::new(self.sum_columns(&self.stored(x), batch, channels, scale));
        Tensor::from_array(self.cast(&sums, self.dtype()), &[batch, channels])
    }

    fn sum_batch(&self, x: &Tensor, rows: usize) -> Tensor {
        let (length, width) = (x.dim(1), x.dim(2));
        let sums = self.sum_columns(&self.stored(x), 1, length * width, 1.0);
        let out = self.zeros(rows * width, DType::F32);
        self.copy_columns(&sums, &out, 1, length * width, [length * width, 0], [rows * width, 0]);
        tensor(out, &[rows, width])
    }

    fn loss(&self, kind: Loss, x: &Tensor, target: &Tensor, weight: &[f32]) -> Tensor {
        let (n, (code, c)) = (x.numel(), code(kind));
        let (x, target, weights) = (self.stored(x), self.stored(target), self.upload(weight));
        let blocks = self.blocks(n);
        let partial = self.empty(blocks, DType::F32);
        let args = args![code, &x, &target, &weights, &partial, n, n / weight.len(), c];
        self.launch("reduce", "loss_forward", self.dtype(), [blocks, 1, 1], THREADS, args);
        tensor(self.sum_all(&partial, 1.0 / n as f32), &[])
    }

    fn loss_backward(&self, kind: Loss, x: &Tensor, target: &Tensor, weight: &[f32], grad: &Tensor) -> Tensor {
        let (n, (code, c)) = (x.numel(), code(kind));
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
        tensor(dx, x.shape())
    }
}
