use crate::Tensor;

/// `[B, H, W, C] -> [B, 2H, 2W, C]`, nearest neighbour.
pub fn upsample_nearest_2x(x: &Tensor) -> Tensor {
    let _ = x;
    todo!()
}

/// `[B, H, W, C] -> [B, C]`, mean over the picture (inference only).
pub fn avg_pool_global(x: &Tensor) -> Tensor {
    let _ = x;
    todo!()
}
