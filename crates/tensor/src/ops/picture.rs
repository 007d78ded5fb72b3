use crate::Tensor;
use crate::device::gpu;

/// Values of `-1..=1` as bytes, rounded as diffusers does (`image_processor.py`: `denormalize`, then `(255 * x).round()`, halves
/// to even). Not recorded.
pub fn picture_bytes(x: &Tensor) -> Vec<u8> {
    if let Some(gpu) = gpu() {
        return gpu.picture_bytes(x);
    }
    let byte = |v: &f32| ((v * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    x.data().iter().map(byte).collect()
}
