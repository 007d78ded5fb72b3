//! Whole pictures on the CUDA kernels, run on the CPU by emulation, against the CPU's own.

#[path = "common/pictures_on.rs"]
mod pictures_on;

use prima_emulator as emulator;
use prima_pipeline::{
    DType, Error, LoadOptions, ModelSource, Needs, Pipeline, Progress, Request, ScheduleOptions, check_room,
};
use prima_tensor::{Device, Tensor};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/tiny-sdxl")
}

fn pipeline() -> Pipeline {
    let source = ModelSource::open(model()).unwrap();
    Pipeline::load(&source, &LoadOptions::default()).unwrap()
}

fn request(seed: u64, steps: usize) -> Request {
    Request {
        prompt: format!("picture number {seed}"),
        seed,
        width: Some(24),
        height: Some(16),
        guidance_scale: Some(0.0),
        schedule: ScheduleOptions::steps(steps),
        ..Request::default()
    }
}

fn paint(pipeline: &Pipeline, request: &Request) -> Vec<u8> {
    let response = pipeline.paint(request, &mut |_| ControlFlow::Continue(()));
    response.unwrap().pictures.remove(0).rgb
}

#[test]
fn steps_are_replayed_and_paint_what_plain_steps_do() {
    for dtype in [DType::F32, DType::BF16] {
        let Some(device) = emulator::device(dtype) else { return };
        device.run(|| {
            let pipeline = pipeline();
            // One step each on a device of its own: all plain.
            let plain: Vec<Vec<u8>> = (0..3)
                .map(|seed| {
                    let fresh = emulator::device(dtype).unwrap();
                    let bytes = fresh.run(|| paint(&pipeline, &request(seed, 1)));
                    assert_eq!(fresh.recordings().recorded, 0);
                    bytes
                })
                .collect();
            for (seed, plain) in plain.iter().enumerate() {
                assert_eq!(
                    paint(&pipeline, &request(seed as u64, 1)),
                    *plain,
                    "{dtype:?}, seed {seed}"
                );
            }
            let counts = device.recordings();
            assert_eq!(
                [counts.recorded, counts.replayed, counts.failed],
                [1, 2, 0],
                "{dtype:?}"
            );
            // Of four steps all are replays now, and guidance is another shape.
            paint(&pipeline, &request(5, 4));
            assert_eq!(device.recordings().replayed, 6);
            let guided = Request {
                guidance_scale: Some(3.0),
                ..request(6, 3)
            };
            let first = paint(&pipeline, &guided);
            assert_eq!(paint(&pipeline, &guided), first);
            let counts = device.recordings();
            assert_eq!(
                [counts.recorded, counts.replayed, counts.failed],
                [2, 11, 0],
                "{dtype:?}"
            );
        });
    }
}

#[test]
fn cancelling_between_replayed_steps_ends_the_request_alone() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    device.run(|| {
        let pipeline = pipeline();
        let want = paint(&pipeline, &request(1, 4));
        for stop in 1..4 {
            let cancelled = pipeline.paint(&request(1, 4), &mut |progress| match progress {
                Progress::Step { done, .. } if done == stop => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
            assert!(matches!(cancelled, Err(Error::Cancelled)));
            assert_eq!(paint(&pipeline, &request(1, 4)), want);
        }
        assert_eq!(device.recordings().failed, 0);
    });
}

#[test]
fn nothing_but_words_and_numbers_goes_up_and_the_picture_comes_down() {
    let Some(device) = emulator::device(DType::BF16) else {
        return;
    };
    device.run(|| {
        let pipeline = pipeline();
        for seed in 0..2 {
            paint(&pipeline, &request(seed, 4));
        }
        device.reset_usage();
        paint(&pipeline, &request(2, 4));
        let usage = device.usage();
        // Up: the ids for two encoders and the place of the pooled token; for each step the sinusoids of its timestep, and of
        // the sizes. Down: the last latents, 3 x 2 of 4 channels, to see that they are finite, and one byte a colour of a pixel.
        let down = 4 * 3 * 2 * 4 + 24 * 16 * 3;
        assert_eq!(usage.uploads, 3 + 4 * 2, "{usage:?}");
        let sinusoids = 4 * (8 + 6 * 8);
        assert_eq!(usage.uploaded, 4 * (2 * 77 + 1 + sinusoids), "{usage:?}");
        assert_eq!((usage.downloads, usage.downloaded), (2, down), "{usage:?}");
        // Each step's noise is made there.
        let noisy = Request {
            schedule: ScheduleOptions {
                scheduler: Some(prima_pipeline::SchedulerKind::EulerAncestral),
                ..ScheduleOptions::steps(4)
            },
            guidance_scale: Some(3.0),
            negative_prompt: Some("a blue harbour".into()),
            ..request(3, 4)
        };
        paint(&pipeline, &noisy);
        device.reset_usage();
        paint(&pipeline, &noisy);
        let usage = device.usage();
        assert_eq!(usage.uploads, 4 * 2, "the text is remembered: {usage:?}");
        assert_eq!((usage.downloads, usage.downloaded), (2, down), "{usage:?}");
    });
}

#[test]
fn what_a_model_needs_is_known_before_it_is_loaded() {
    let source = ModelSource::open(model()).unwrap();
    for dtype in [DType::F32, DType::BF16] {
        let Some(device) = emulator::device(dtype) else { return };
        let request = request(1, 1);
        let needs = Needs::of(&source, dtype, &request, &device).unwrap();
        device.run(|| {
            let pipeline = Pipeline::load(&source, &LoadOptions::of(dtype)).unwrap();
            paint(&pipeline, &request);
            assert_eq!(device.usage().peak, needs.peak, "{dtype:?}");
            pipeline.parts().text_encoders.forget_prompts();
            assert_eq!(device.usage().in_use, needs.weights, "{dtype:?}");
        });
    }
}

#[test]
fn a_card_that_is_too_small_is_told_what_would_fit() {
    let source = ModelSource::open(model()).unwrap();
    let large = Request {
        width: Some(1024),
        height: Some(1024),
        ..request(1, 1)
    };
    let refused = |limit_mib: usize| -> Option<String> {
        let device = emulator::device_with(DType::F32, limit_mib << 20)?;
        Some(
            match device.run(|| check_room(&source, &LoadOptions::default(), &large)) {
                Ok(_) => "it fits".to_owned(),
                Err(error) => error.to_string(),
            },
        )
    };
    let Some(tight) = refused(256 + 60) else { return };
    assert!(tight.contains("for a picture of 1024x1024 in f32"), "{tight}");
    assert!(
        tight.contains("what fits is") && tight.contains("--dtype bf16"),
        "{tight}"
    );
    let nothing = refused(100).unwrap();
    assert!(nothing.contains("100 MiB of 100 MiB are free"), "{nothing}");
    assert!(nothing.contains("use --device cpu"), "{nothing}");
    assert_eq!(refused(4000).unwrap(), "it fits");
    assert!(
        Device::cpu()
            .run(|| check_room(&source, &LoadOptions::default(), &large))
            .is_ok()
    );
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
