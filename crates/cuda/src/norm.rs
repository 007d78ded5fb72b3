//! Launchers of norm.cu.

use crate::gpu::{CudaGpu, THREADS, args};
use crate::memory::{Array, tensor};
use prima_tensor::gpu::{Form, Norms};
use prima_tensor::{DType, Param, Tensor};

impl CudaGpu {
    /// `[2, channels]` cut in two.
    fn halves(&self, both: &Array, channels: usize) -> [Tensor; 2] {
        let half = |start: usize| {
            let out = self.empty(channels, DType::F32);
            self.copy_columns(both, &out, 1, channels, [2 * channels, start], [channels, 0]);
            tensor(out, &[channels])
        };
        [half(0), half(channels)]
    }

    /// Blocks of a kernel with one warp a row.
    fn warp_blocks(&self, rows: usize) -> usize {
        self.blocks(rows * 32)
    }
}

impl Norms for CudaGpu {
    fn group_norm(
        &self,
        x: &Tensor,
        gamma: &Param,
        beta: &Param,
        groups: usize,
        eps: f32,
        silu: bool,
    ) -> (Tensor, Tensor) {
        let (batch, channels, n, dtype) = (x.dim(0), x.dim(-1), x.numel(), self.dtype());
        let rows = n / batch / channels;
        let (from, out) = (self.stored(x), self.empty(n, dtype));
        let splits = self.splits(rows * channels / groups / 32, batch * groups);
        let partial = self.empty(batch * groups * splits * 2, DType::F32);
        let args = args![&from, &partial, rows, channels, groups, splits];
        self.launch("norm", "group_sums", dtype, [groups, splits, batch], THREADS, args);
        let statistics = self.empty(batch * groups * 2, DType::F32);
        let args = args![&from, &partial, &statistics, rows, channels, groups, splits, batch, eps];
        self.each("norm", "group_statistics", dtype, batch * groups, args);
        let (gamma, beta) = (self.param(gamma, Form::Wide), self.param(beta, Form::Wide));
        let args = args![
            &from,
            &statistics,
            &gamma,
            &beta,
            &out,
            n,
            n / batch,
            channels,
            groups,
            usize::from(silu)
        ];
        self.each("norm", "group_norm_forward", dtype, n, args);
        (tensor(out, x.shape()), tensor(statistics, &[batch, groups, 2]))
    }

    fn group_norm_backward(
        &self,
        x: &Tensor,
        grad: &Tensor,
        statistics: &Tensor,
        gamma: &Param,
        beta: &Param,
        groups: usize,
        silu: bool,
        needs_x: bool,
    ) -> (Option<Tensor>, [Tensor; 2]) {
        let (batch, channels, n, dtype) = (x.dim(0), x.dim(-1), x.numel(), self.dtype());
        let rows = n / batch / channels;
        let silu = usize::from(silu);
        let (from, grad, statistics) = (self.stored(x), self.stored(grad), self.array(statistics, DType::F32));
        let (gamma, beta) = (self.param(gamma, Form::Wide), self.param(beta, Form::Wide));
        let tiles = channels.div_ceil(32);
        let splits = self.splits(rows, tiles * batch);
        let partial = self.empty(batch * splits * 2 * channels, DType::F32);
        let args = args![
            &from,
            &grad,
            &statistics,
            &gamma,
            &beta,
            &partial,
            rows,
            channels,
            groups,
            splits,
            silu
        ];
        let grid = [tiles, splits, batch];
        self.launch("norm", "group_norm_backward_sums", dtype, grid, THREADS, args);
        // Beta's sums and gamma's lie side by side: they are summed as twice as many channels.
        let sums = self.sum_partials(&partial, batch, 2 * channels, splits, 1.0);
        let dx = needs_x.then(|| {
            let means = self.empty(batch * groups * 2, DType::F32);
            let args = args![&sums, &gamma, &means, rows, channels, groups, batch];
            self.each("norm", "group_norm_backward_means", dtype, batch * groups, args);
            let dx = self.empty(n, dtype);
            let args = args![
                &from,
                &grad,
                &statistics,
                &means,
                &gamma,
                &beta,
                &dx,
                n,
                n / batch,
                channels,
                groups,
                silu
            ];
            self.each("norm", "group_norm_backward", dtype, n, args);
            tensor(dx, x.shape())
        });
        let both = self.sum_partials(&sums, 1, 2 * channels, batch, 1.0);
        let [beta, gamma] = self.halves(&both, channels);
        (dx, [gamma, beta])
    }

    fn layer_norm(&self, x: &Tensor, gamma: &Param, beta: &Param, eps: f32) -> (Tensor, Tensor) {
        let (channels, n, dtype) = (x.dim(-1), x.numel(), self.dtype());
        let rows = n / channels;
        let (from, out) = (self.stored(x), self.empty(n, dtype));
        let statistics = self.empty(rows * 2, DType::F32);
        let (gamma, beta) = (self.param(gamma, Form::Wide), self.param(beta, Form::Wide));
        let args = args![&from, &gamma, &beta, &out, &statistics, rows, channels, eps];
        let grid = [self.warp_blocks(rows), 1, 1];
        self.launch("norm", "layer_norm_forward", dtype, grid, THREADS, args);
        (tensor(out, x.shape()), tensor(statistics, &[rows, 2]))
    }

    fn layer_norm_backward(
        &self,
        x: &Tensor,
        grad: &Tensor,
        statistics: &Tensor,
        gamma: &Param,
    ) -> (Option<Tensor>, [Tensor; 2]) {
        let (channels, n, dtype) = (x.dim(-1), x.numel(), self.dtype());
        let rows = n / channels;
        let (from, grad, statistics) = (self.stored(x), self.stored(grad), self.array(statistics, DType::F32));
        let dx = self.empty(n, dtype);
        let gamma = self.param(gamma, Form::Wide);
        let args = args![&from, &grad, &statistics, &gamma, &dx, rows, channels];
        let grid = [self.warp_blocks(rows), 1, 1];
        self.launch("norm", "layer_norm_backward", dtype, grid, THREADS, args);
        let tiles = channels.div_ceil(32);
        let splits = self.splits(rows, tiles);
        let partial = self.empty(splits * 2 * channels, DType::F32);
        let args = args![&from, &grad, &statistics, &partial, rows, channels, splits];
        let grid = [tiles, splits, 1];
        self.launch("norm", "layer_norm_backward_sums", dtype, grid, THREADS, args);
        let both = self.sum_partials(&partial, 1, 2 * channels, splits, 1.0);
        let [beta, gamma] = self.halves(&both, channels);
        (Some(tensor(dx, x.shape())), [gamma, beta])
    }
}
