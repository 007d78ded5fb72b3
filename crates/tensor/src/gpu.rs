//! What a GPU offers, so that ops run on it: its memory and its order of work ([`Gpu`]), and what computes each family of ops.
//! `crates/cuda` answers, above this crate; nothing here knows of NVIDIA. Ops have checked shapes before they ask.

use crate::ops::{AttentionSizes, Binary, ConvolutionSizes, Loss};
pub use crate::param::Stored;
use crate::{Activation, AdamWStep, DType, Device, DeviceError, Moments, Param, Philox, Tensor};
use std::any::Any;
use std::sync::Arc;

/// Values on a device.
pub trait DeviceArray: Any + Send + Sync {
    /// Number of values.
    fn len(&self) -> usize;

    /// The values in f32: waits for the device the first time.
    fn host(&self) -> &[f32];

    /// [`host`](Self::host) without a copy where this is the only owner.
    fn into_host(self: Arc<Self>) -> Vec<f32>;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// In which form a parameter lies on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// f32, as in the file: biases, norms, tables that are added.
    Wide,
    /// As activations are stored, as in the file: matrices.
    Stored,
    /// As activations are stored, `[out, kh, kw, in]`.
    ChannelsLast,
}

/// What has been asked of a device's memory and of the bus to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that arrays and recordings have now, and the most they had at once.
    pub in_use: usize,
    pub peak: usize,
    /// Bytes taken from the driver: what is in use and what is kept for the next array.
    pub reserved: usize,
    pub most_reserved: usize,
    /// Copies from the host to the device and back, and their bytes.
    pub uploads: usize,
    pub uploaded: usize,
    pub downloads: usize,
    pub downloaded: usize,
}

/// What was recorded and replayed on a device so far ([`Repeatable`](crate::Repeatable)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordingCounts {
    pub recorded: usize,
    pub replayed: usize,
    /// Recordings that came to nothing; the work was then done plainly.
    pub failed: usize,
    /// Recordings that are kept now.
    pub kept: usize,
}

/// Work from inputs to an output; `None` where it ended early.
pub type Work<'a> = &'a mut dyn FnMut(&[Tensor]) -> Option<Tensor>;

/// Names a group of GPUs that add up their gradients.
pub type GroupId = [u8; 128];

/// The GPUs of several processes, this one's among them.
pub trait Peers: Send {
    /// The sum over all processes, in f32; each of them calls this with a tensor of the same size.
    fn sum(&self, tensor: &Tensor) -> Tensor;
}

/// A GPU. All work is done in the order in which it is asked for. What returns no error ends the work in progress by
/// [`fail`](crate::device::fail).
pub trait Gpu: Pointwise + Layout + Sums + Norms + Products + Attention + Updates + Noise {
    /// How activations are stored: f32 or bf16.
    fn dtype(&self) -> DType;

    /// The tensor's values on this device, off the tape; without a copy if they are there.
    fn copy(&self, tensor: &Tensor) -> Tensor;

    /// Waits for all work that was asked for.
    fn synchronize(&self);

    fn usage(&self) -> Usage;

    /// Counts peaks and copies anew, and gives memory that is kept for later back.
    fn reset_usage(&self);

    /// Free and all memory in bytes.
    fn memory(&self) -> Result<(usize, usize), DeviceError>;

    /// A device that computes nothing and counts what the same work would allocate with activations of `dtype` on this one.
    fn dry_run(&self, dtype: DType) -> Device;

    /// `work(inputs)`, by replay where it was recorded for this owner. The work does the same for all inputs of the same
    /// shapes, and reads nothing else that changes, parameters excepted.
    fn repeat(&self, owner: &Arc<()>, inputs: &[&Tensor], work: Work) -> Option<Tensor>;

    /// Drops recorded work, whose memory is then free.
    fn forget_recordings(&self);

    fn recording_counts(&self) -> RecordingCounts;

    /// A name for a group that is not formed yet: one process makes it, all join with it.
    fn new_group(&self) -> Result<GroupId, DeviceError>;

    /// Joins other processes' GPUs, as `rank` of `world`; waits for the others.
    fn join_group(self: Arc<Self>, id: GroupId, rank: usize, world: usize) -> Result<Box<dyn Peers>, DeviceError>;
}

/// Each value by itself, or with the one beside it.
pub trait Pointwise: Send + Sync {
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor;

    /// `scale * x + shift`
    fn affine(&self, x: &Tensor, scale: f32, shift: f32) -> Tensor;

    fn activation(&self, x: &Tensor, kind: Activation) -> Tensor;

    /// `grad · act'(x)`
    fn activation_backward(&self, x: &Tensor, kind: Activation, grad: &Tensor) -> Tensor;

    /// To `shape`, half of `x`.
    fn geglu(&self, x: &Tensor, shape: &[usize]) -> Tensor;

    fn geglu_backward(&self, x: &Tensor, grad: &Tensor) -> Tensor;

    /// `a[b]·x + c[b]·y`, or `a[b]·x`.
    fn combine_per_sample(&self, a: &[f32], x: &Tensor, other: Option<(&[f32], &Tensor)>) -> Tensor;

    /// Up to four terms, in f32: what a sampler adds up over its steps.
    fn weighted_sum(&self, terms: &[(f32, &Tensor)]) -> Tensor;

    /// `x [B, ..., C] + v [B, C]`
    fn add_per_sample_channel(&self, x: &Tensor, v: &Tensor) -> Tensor;

    /// `scale · v [B, C]` in each row of `[B, ..., C]`.
    fn broadcast_rows(&self, v: &Tensor, shape: &[usize], scale: f32) -> Tensor;

    /// `x [B, L, D] + table [L.., D]`
    fn add_positions(&self, x: &Tensor, table: &Param) -> Tensor;

    /// Values of -1..1 as bytes.
    fn picture_bytes(&self, x: &Tensor) -> Vec<u8>;

    /// `value` everywhere, in f32.
    fn full(&self, value: f32, shape: &[usize]) -> Tensor;
}

/// Philox's noise, to the CPU's bits.
pub trait Noise: Send + Sync {
    /// Standard normal values in f32: `len` of each of `images` streams, `first` and those of the images after it.
    fn philox_normal(&self, first: Philox, images: usize, len: usize, shape: &[usize]) -> Tensor;
}

/// Values that change places.
pub trait Layout: Send + Sync {
    /// Tensors seen as `[outer, inner_i]` joined along the second axis.
    fn concat(&self, parts: &[&Tensor], outer: usize, shape: &[usize]) -> Tensor;

    /// Values `start .. start + len` of each row of `total`.
    fn narrow(&self, x: &Tensor, total: usize, start: usize, len: usize, shape: &[usize]) -> Tensor;

    /// The gradient of [`narrow`](Self::narrow): zeros around it.
    fn widen(&self, grad: &Tensor, total: usize, start: usize, len: usize, shape: &[usize]) -> Tensor;

    /// Swaps the two last axes of `[batch, rows, columns]`.
    fn transposed(&self, x: &Tensor, rows: usize, columns: usize, shape: &[usize]) -> Tensor;

    /// `[B, H, W, C]` to `[B, 2H, 2W, C]`, nearest neighbour.
    fn upsample(&self, x: &Tensor) -> Tensor;

    /// `grad` is `[B, 2H, 2W, C]`.
    fn upsample_backward(&self, grad: &Tensor) -> Tensor;

    /// Rows of a table by id.
    fn embedding(&self, table: &Param, ids: &[u32], shape: &[usize]) -> Tensor;

    /// Rows `ids` of `x` seen as rows of its last axis.
    fn gather_rows(&self, x: &Tensor, ids: &[u32], shape: &[usize]) -> Tensor;

    /// The gradient of both: each row of `grad` added to row `ids[i]` of `[rows, width]`, in f32.
    fn scatter_rows(&self, grad: &Tensor, ids: &[u32], rows: usize) -> Tensor;
}

/// Sums and means, in f32.
pub trait Sums: Send + Sync {
    /// Over all axes but the last: `[C]`.
    fn sum_rows(&self, x: &Tensor) -> Tensor;

    /// `scale` times the sums over the middle axes of `[B, ..., C]`: `[B, C]`, stored as activations are.
    fn sum_samples(&self, x: &Tensor, scale: f32) -> Tensor;

    /// The sum over the samples of `[B, L, D]` as the first rows of f32 `[rows, D]`, zeros below.
    fn sum_batch(&self, x: &Tensor, rows: usize) -> Tensor;

    /// `mean_b weight[b] · mean value(x - target)`, a scalar.
    fn loss(&self, kind: Loss, x: &Tensor, target: &Tensor, weight: &[f32]) -> Tensor;

    fn loss_backward(&self, kind: Loss, x: &Tensor, target: &Tensor, weight: &[f32], grad: &Tensor) -> Tensor;
}

/// GroupNorm and LayerNorm. `statistics`, mean and reciprocal standard deviation of each group or row in f32, go from the
/// forward pass to the backward one.
pub trait Norms: Send + Sync {
    /// The result and the statistics.
    fn group_norm(
        &self,
        x: &Tensor,
        gamma: &Param,
        beta: &Param,
        groups: usize,
        eps: f32,
        silu: bool,
    ) -> (Tensor, Tensor);

    /// The gradient of `x` if it is needed, and those of gamma and beta.
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
    ) -> (Option<Tensor>, [Tensor; 2]);

    /// The result and the statistics.
    fn layer_norm(&self, x: &Tensor, gamma: &Param, beta: &Param, eps: f32) -> (Tensor, Tensor);

    /// The gradient of `x`, and those of gamma and beta.
    fn layer_norm_backward(
        &self,
        x: &Tensor,
        grad: &Tensor,
        statistics: &Tensor,
        gamma: &Param,
    ) -> (Option<Tensor>, [Tensor; 2]);
}

/// Linear layers and convolutions. Gradients of weights are f32, of the weight's shape.
pub trait Products: Send + Sync {
    /// `act(x · weightᵀ + bias) + residual`, `out_shape` ending in the number of outputs.
    fn linear(
        &self,
        x: &Tensor,
        weight: &Param,
        bias: Option<&Param>,
        act: Activation,
        residual: Option<&Tensor>,
        out_shape: &[usize],
    ) -> Tensor;

    fn linear_grad_input(&self, grad: &Tensor, weight: &Param, x_shape: &[usize]) -> Tensor;

    fn linear_grad_weight(&self, grad: &Tensor, x: &Tensor, weight_shape: &[usize]) -> Tensor;

    /// `act(conv(x, weight) + bias) + residual`
    fn conv2d(
        &self,
        s: &ConvolutionSizes,
        x: &Tensor,
        weight: &Param,
        bias: Option<&Param>,
        act: Activation,
        residual: Option<&Tensor>,
    ) -> Tensor;

    fn conv2d_grad_input(&self, s: &ConvolutionSizes, grad: &Tensor, weight: &Param) -> Tensor;

    fn conv2d_grad_weight(&self, s: &ConvolutionSizes, grad: &Tensor, x: &Tensor) -> Tensor;

    /// One filter a channel; `s.inputs` and `s.outputs` are both the channels.
    fn depthwise(
        &self,
        s: &ConvolutionSizes,
        x: &Tensor,
        weight: &Param,
        bias: Option<&Param>,
        act: Activation,
    ) -> Tensor;

    fn depthwise_grad_input(&self, s: &ConvolutionSizes, grad: &Tensor, weight: &Param) -> Tensor;
}

/// Attention.
pub trait Attention: Send + Sync {
    /// The result, and the logarithms of the sums of exponentials in f32, which the backward pass needs.
    fn attention(&self, s: AttentionSizes, q: &Tensor, k: &Tensor, v: &Tensor) -> (Tensor, Tensor);

    /// Gradients of q, k and v.
    fn attention_backward(
        &self,
        s: AttentionSizes,
        qkv: [&Tensor; 3],
        out: &Tensor,
        log_sums: &Tensor,
        grad: &Tensor,
    ) -> [Tensor; 3];
}

/// What an optimizer does to f32 values.
pub trait Updates: Send + Sync {
    /// The sum of all squared values of all tensors, read back.
    fn sum_squares(&self, tensors: &[&Tensor]) -> f32;

    fn adamw(&self, value: &mut Tensor, grad: &Tensor, moments: &mut Moments, step: &AdamWStep);

    /// `average += (1 - decay) · (value - average)`
    fn ema(&self, average: &mut Tensor, value: &Tensor, decay: f32);
}
