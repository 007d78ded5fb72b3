use crate::Tensor;
use crate::autograd::record;
use crate::cpu::layout as kernel;
use crate::device::gpu;
use crate::ops::elementwise::on_tape;

/// Concatenates blocks: the tensors are seen as `[outer, inner_i]` and joined along the second axis.
/// Backward: each part gets its slice of the gradient.
fn concat_inner(parts: &[&Tensor], outer: usize, shape: &[usize]) -> Tensor {
    let widths: Vec<usize> = parts.iter().map(|p| p.numel() / outer.max(1)).collect();
    let total: usize = widths.iter().sum();
    let out = if let Some(gpu) = gpu() {
        gpu.concat(parts, outer, shape)
    } else {
        let data: Vec<&[f32]> = parts.iter().map(|part| part.data()).collect();
        Tensor::from_vec(kernel::concat(&data, &widths, outer), shape)
    };
    let slots: Vec<_> = parts.iter().map(|p| on_tape(p).then(|| p.shape().to_vec())).collect();
    record(out, parts, move |grad| {
        let mut start = 0;
        let slice = |(shape, &width): (&Option<Vec<usize>>, &usize)| {
            let at = start;
            start += width;
            shape.as_ref().map(|shape| take_inner(grad, total, at, width, shape))
        };
        slots.iter().zip(&widths).map(slice).collect()
    })
}

/// Values `start .. start + len` of each row of `total` values.
fn take_inner(x: &Tensor, total: usize, start: usize, len: usize, shape: &[usize]) -> Tensor {
    if let Some(gpu) = gpu() {
        return gpu.narrow(x, total, start, len, shape);
    }
    Tensor::from_vec(kernel::narrow(x.data(), total, start, len), shape)
}

/// [`take_inner`] as an op. Backward: the gradient padded with zeros.
fn narrow_inner(x: &Tensor, total: usize, start: usize, len: usize, shape: &[usize]) -> Tensor {
    let out = take_inner(x, total, start, len, shape);
    let from = x.shape().to_vec();
    record(out, &[x], move |grad| {
        if let Some(gpu) = gpu() {
            return vec![Some(gpu.widen(grad, total, start, len, &from))];
        }
        let dx = kernel::widen(grad.data(), total, start, len, from.iter().product());
        vec![Some(Tensor::from_vec(dx, &from))]
    })
}

/// The shape of the parts joined along `axis`; all other axes are equal.
fn joined_shape(op: &str, parts: &[&Tensor], axis: usize) -> Vec<usize> {
    assert!(!parts.is_empty(), "{op} wants at least one tensor");
    let mut shape = parts[0].shape().to_vec();
    shape[axis] = 0;
    for part in parts {
        let mut other = part.shape().to_vec();
        assert_eq!(
            other.len(),
            shape.len(),
            "{op}: {:?} and {:?} have different ranks",
            parts[0],
            part
        );
        other[axis] = shape[axis];
        assert_eq!(
            other,
            shape,
            "{op}: {:?} and {:?} differ outside of axis {axis}",
            parts[0].shape(),
            part.shape()
        );
        shape[axis] += part.shape()[axis];
    }
    shape
}

/// Concatenates along the last axis; leading axes are equal.
pub fn concat_channels(parts: &[&Tensor]) -> Tensor {
    let axis = parts.first().map_or(0, |p| p.shape().len() - 1);
    let shape = joined_shape("concat_channels", parts, axis);
    concat_inner(parts, shape[..axis].iter().product(), &shape)
}

/// `[B, L1, D], [B, L2, D] -> [B, L1 + L2, D]`.
pub fn concat_tokens(parts: &[&Tensor]) -> Tensor {
    let shape = joined_shape("concat_tokens", parts, 1);
    assert_eq!(shape.len(), 3, "concat_tokens joins [B, L, D], shape is {shape:?}");
    concat_inner(parts, shape[0], &shape)
}

/// Channels `start .. start + len` of the last axis.
pub fn narrow_channels(x: &Tensor, start: usize, len: usize) -> Tensor {
    let channels = x.dim(-1);
    assert!(
        start + len <= channels,
        "channels {start}..{} of {channels}",
        start + len
    );
    let mut shape = x.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = len;
    }
    narrow_inner(x, channels, start, len, &shape)
}

/// Concatenates along the first axis.
pub fn stack_batch(parts: &[&Tensor]) -> Tensor {
    let shape = joined_shape("stack_batch", parts, 0);
    concat_inner(parts, 1, &shape)
}

/// Samples `start .. start + len` of the first axis.
pub fn take_batch(x: &Tensor, start: usize, len: usize) -> Tensor {
    let batch = x.dim(0);
    assert!(start + len <= batch, "samples {start}..{} of {batch}", start + len);
    let mut shape = x.shape().to_vec();
    shape[0] = len;
    let sample = x.numel() / batch.max(1);
    narrow_inner(x, x.numel(), start * sample, len * sample, &shape)
}

/// Swaps the two last axes of `[batch, rows, columns]`.
fn transpose(x: &Tensor, rows: usize, columns: usize, shape: &[usize]) -> Tensor {
    match gpu() {
        Some(gpu) => gpu.transposed(x, rows, columns, shape),
        None => Tensor::from_vec(kernel::transpose(x.data(), rows, columns), shape),
    }
}

/// `[B, C, H, W] -> [B, H, W, C]`, at the edge of the system only.
pub fn nchw_to_nhwc(x: &Tensor) -> Tensor {
    let &[b, c, h, w] = x.shape() else {
        panic!("nchw_to_nhwc wants [B, C, H, W], shape is {:?}", x.shape())
    };
    let out = transpose(x, c, h * w, &[b, h, w, c]);
    record(out, &[x], |grad| vec![Some(nhwc_to_nchw(grad))])
}

/// `[B, H, W, C] -> [B, C, H, W]`.
pub fn nhwc_to_nchw(x: &Tensor) -> Tensor {
    let &[b, h, w, c] = x.shape() else {
        panic!("nhwc_to_nchw wants [B, H, W, C], shape is {:?}", x.shape())
    };
    let out = transpose(x, h * w, c, &[b, c, h, w]);
    record(out, &[x], |grad| vec![Some(nchw_to_nhwc(grad))])
}
