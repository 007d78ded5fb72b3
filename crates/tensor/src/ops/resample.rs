use crate::Tensor;
use crate::autograd::record;
use crate::cpu::resample as kernel;
use crate::cpu::sums;
use crate::device::gpu;
use crate::ops::elementwise::scale_samples;

/// `[B, H, W, C] -> [B, 2H, 2W, C]`, nearest neighbour. Backward: each pixel sums its four copies.
pub fn upsample_nearest_2x(x: &Tensor) -> Tensor {
    let &[b, h, w, c] = x.shape() else {
        panic!("upsample_nearest_2x wants [B, H, W, C], shape is {:?}", x.shape())
    };
    let out = match gpu() {
        Some(gpu) => gpu.upsample(x),
        None => Tensor::from_vec(kernel::doubled(x.data(), w, c), &[b, 2 * h, 2 * w, c]),
    };
    record(out, &[x], move |grad| {
        vec![Some(match gpu() {
            Some(gpu) => gpu.upsample_backward(grad),
            None => Tensor::from_vec(kernel::sums_of_copies(grad.data(), w, c), &[b, h, w, c]),
        })]
    })
}

/// `[B, H, W, C] -> [B, C]`, mean over the picture. Backward: `grad / (H W)` to each pixel.
pub fn avg_pool_global(x: &Tensor) -> Tensor {
    let &[b, h, w, c] = x.shape() else {
        panic!("avg_pool_global wants [B, H, W, C], shape is {:?}", x.shape())
    };
    assert!(h * w * c > 0, "avg_pool_global of no pixels");
    let factor = 1.0 / (h * w) as f32;
    let out = if let Some(gpu) = gpu() {
        gpu.sum_samples(x, factor)
    } else {
        let sums = sums::of_samples(x.data(), h * w * c, c);
        scale_samples(&Tensor::from_vec(sums, &[b, c]), &vec![factor; b])
    };
    record(out, &[x], move |grad| {
        if let Some(gpu) = gpu() {
            return vec![Some(gpu.broadcast_rows(grad, &[b, h, w, c], factor))];
        }
        let dx = kernel::repeated(grad.data(), c, h * w, factor);
        vec![Some(Tensor::from_vec(dx, &[b, h, w, c]))]
    })
}
