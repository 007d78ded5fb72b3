use crate::Tensor;
use crate::cpu::elementwise::bytes;
use crate::device::gpu;

/// Values of `-1..=1` as bytes, rounded as diffusers does (`image_processor.py`: `denormalize`, then `(255 * x).round()`, halves
/// to even). Not recorded.
pub fn picture_bytes(x: &Tensor) -> Vec<u8> {
    if let Some(gpu) = gpu() {
        return gpu.picture_bytes(x);
    }
    bytes(x.data())
}
