//! The kernels, run on the CPU by emulation, against the CPU's own.

#[path = "common/checks.rs"]
mod checks;
#[path = "../../tensor/tests/common/mod.rs"]
mod common;

use common::random_tensor;
use prima_emulator as emulator;
use prima_tensor::{DType, DeviceError, Tensor, affine, device};

#[test]
fn pointwise_ops_and_their_gradients() {
    checks::pointwise(&emulator::device);
}

#[test]
fn losses_and_their_gradients() {
    checks::losses(&emulator::device);
}

#[test]
fn norms_and_their_gradients() {
    checks::norms(&emulator::device);
}

#[test]
fn layout_ops_and_their_gradients() {
    checks::layout(&emulator::device);
}

#[test]
fn linear_layers_and_their_gradients() {
    checks::linear_layers(&emulator::device);
}

#[test]
fn convolutions_and_their_gradients() {
    checks::convolutions(&emulator::device);
}

#[test]
fn depthwise_convolutions_and_their_gradients() {
    checks::depthwise(&emulator::device);
}

#[test]
fn fused_epilogues_and_inference_only_ops() {
    checks::fused_and_inference_only(&emulator::device);
}

#[test]
fn attention_and_its_gradients() {
    checks::attentions(&emulator::device);
}

#[test]
fn attention_on_tensor_cores_is_as_exact_as_bf16() {
    checks::attention_on_tensor_cores(&emulator::device);
}

#[test]
fn pictures_bytes_are_the_cpus() {
    checks::picture_bytes(&emulator::device);
}

#[test]
fn epilogues_in_the_librarys_products_and_after_our_own() {
    checks::epilogues(&emulator::device);
    checks::epilogues(&emulator::device_with_library);
    checks::linear_layers(&emulator::device_with_library);
}

#[test]
fn noise_is_the_cpus_to_the_bit() {
    checks::noise(&emulator::device);
}

#[test]
fn optimizer_steps_are_the_cpus() {
    checks::optimizer_steps(&emulator::device);
}

#[test]
fn gradients_of_several_batches_are_summed_and_put_into_buckets() {
    checks::gradient_sums(&emulator::device);
}

#[test]
fn matrices_are_made_orthogonal_as_on_the_cpu() {
    checks::orthogonalized(&emulator::device);
}

#[test]
fn ten_training_losses_follow_the_cpus() {
    checks::training(&emulator::device);
}

#[test]
fn out_of_memory_ends_the_work_and_gives_its_memory_back() {
    let Some(device) = emulator::device_with(DType::F32, 16 << 20) else {
        return;
    };
    let x = random_tensor(1, &[1 << 20]);
    let work = |copies: usize| {
        device::catch(|| {
            device.run(|| {
                let kept: Vec<Tensor> = (0..copies).map(|i| affine(&x, 1.0, i as f32)).collect();
                kept.iter().map(|t| t.data()[0]).sum::<f32>()
            })
        })
    };
    for _ in 0..3 {
        let error = work(8).unwrap_err();
        assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
        assert!(error.to_string().contains("4 MiB more"), "{error}");
        assert!(work(2).is_ok(), "what the failed work had allocated is free again");
    }
    // Pieces that are kept for one size make room for another.
    let other = random_tensor(2, &[3 << 19]);
    assert!(device::catch(|| device.run(|| affine(&other, 2.0, 0.0).data().len())).is_ok());
}
