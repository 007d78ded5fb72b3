//! Whole pictures on the CUDA kernels, run on the CPU by emulation, against the CPU's own.

#[path = "../../tensor/tests/common/emulator.rs"]
mod emulator;
#[path = "common/pictures_on.rs"]
mod pictures_on;

use prima_pipeline::{DType, Error, LoadOptions, ModelSource, Pipeline, Request, ScheduleOptions};
use prima_tensor::Tensor;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/tiny-sdxl")
}

#[test]
fn pictures_are_the_cpus() {
    for (dtype, least_db) in [(DType::F32, 60.0), (DType::BF16, 30.0)] {
        let Some(device) = emulator::device(dtype) else { return };
        let psnr = pictures_on::psnr(&device, dtype, &model());
        println!("{dtype:?}: {psnr:.1} dB");
        assert!(psnr >= least_db, "{dtype:?}: {psnr:.1} dB");
    }
}

#[test]
fn a_request_that_the_device_has_no_room_for_fails_alone() {
    let Some(device) = emulator::device_with(DType::F32, 64 << 20) else {
        return;
    };
    device.run(|| {
        let source = ModelSource::open(model()).unwrap();
        let pipeline = Pipeline::load(&source, &LoadOptions::default()).unwrap();
        let paint = || {
            let request = Request {
                width: Some(16),
                height: Some(16),
                schedule: ScheduleOptions {
                    num_inference_steps: Some(1),
                    ..ScheduleOptions::default()
                },
                ..Request::default()
            };
            pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))
        };
        // Something else has nearly all of the memory.
        let other = device.copy(&Tensor::zeros(&[63 << 18]));
        let error = paint().unwrap_err();
        assert!(matches!(error, Error::Device(_)), "{error}");
        assert!(error.to_string().contains("has no room for"), "{error}");
        drop(other);
        paint().unwrap();
    });
}
