use crate::Tensor;

/// Concatenates along the last axis; leading axes are equal.
pub fn concat_channels(parts: &[&Tensor]) -> Tensor {
    let _ = parts;
    todo!()
}

/// `[B, L1, D], [B, L2, D] -> [B, L1 + L2, D]`.
pub fn concat_tokens(parts: &[&Tensor]) -> Tensor {
    let _ = parts;
    todo!()
}

/// Channels `start .. start + len` of the last axis.
pub fn narrow_channels(x: &Tensor, start: usize, len: usize) -> Tensor {
    let _ = (x, start, len);
    todo!()
}

/// Concatenates along the first axis.
pub fn stack_batch(parts: &[&Tensor]) -> Tensor {
    let _ = parts;
    todo!()
}

/// Samples `start .. start + len` of the first axis.
pub fn take_batch(x: &Tensor, start: usize, len: usize) -> Tensor {
    let _ = (x, start, len);
    todo!()
}

/// `[B, C, H, W] -> [B, H, W, C]`, at the edge of the system only.
pub fn nchw_to_nhwc(x: &Tensor) -> Tensor {
    let _ = x;
    todo!()
}

/// `[B, H, W, C] -> [B, C, H, W]`.
pub fn nhwc_to_nchw(x: &Tensor) -> Tensor {
    let _ = x;
    todo!()
}
