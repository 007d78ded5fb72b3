//! Whole pictures against diffusers: goldens/pictures/cases.json says what each case is, and
//! scripts/goldens/ how it was made. Trajectories within 1e-4 of their largest value; pixels within
//! 0.5/255 on average and 3/255 at most.

mod common;

use common::{check_picture, goldens, paint};
use prima_models::{AutoencoderTiny, AutoencoderTinyConfig};
use prima_pipeline::{
    DType, LoadOptions, ModelSource, Parts, Pipeline, Progress, Reading, Request, ScheduleOptions, Vae,
};
use prima_schedulers::SchedulerConfig;
use serde_json::Value;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

fn cases() -> Vec<Value> {
    common::cases("pictures")
}

fn request(case: &Value) -> Request {
    common::request(case, "pictures")
}

fn pipeline(case: &Value) -> Pipeline {
    let folder = goldens().join(case["folder"].as_str().unwrap());
    let source = ModelSource::open(&folder).unwrap();
    let mut parts = Parts::load(&source, &LoadOptions::default()).unwrap();
    parts.scheduler_config = SchedulerConfig::from_json(&case["scheduler_config"].to_string()).unwrap();
    if let Some(vae) = case["vae"].as_str() {
        parts.vae = tiny_vae(&goldens().join(vae));
    }
    Pipeline::new(parts).unwrap()
}

fn tiny_vae(folder: &Path) -> Vae {
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let config = AutoencoderTinyConfig::from_json(&config, "config.json").unwrap();
    let weights = folder.join("diffusion_pytorch_model.safetensors");
    let mut reader = prima_checkpoint::Reader::open(&weights).unwrap();
    let vae = AutoencoderTiny::new(config, &mut reader).unwrap();
    reader.finish().unwrap();
    Vae::Tiny(vae)
}

/// Checks the cases whose name satisfies `wanted`; a request is one prompt, so the case of two is left out.
fn check_cases(wanted: impl Fn(&str) -> bool) {
    let cases: Vec<Value> = cases().into_iter().filter(|c| c["prompt"].is_string()).collect();
    let cases: Vec<&Value> = cases.iter().filter(|c| wanted(c["name"].as_str().unwrap())).collect();
    assert!(!cases.is_empty());
    for case in cases {
        check_picture(&pipeline(case), case, "pictures");
    }
}

#[test]
fn turbo_is_diffusers_turbo() {
    check_cases(|name| name.starts_with("turbo"));
}

#[test]
fn lightning_is_diffusers_lightning() {
    check_cases(|name| name.starts_with("lightning"));
}

#[test]
fn consistency_models_are_those_of_diffusers() {
    check_cases(|name| {
        ["lcm", "dmd2", "hyper", "tcd"]
            .iter()
            .any(|start| name.starts_with(start))
    });
}

#[test]
fn many_steps_with_guidance_are_those_of_diffusers() {
    check_cases(|name| {
        ["euler", "ddim", "dpmpp", "unipc", "heun"]
            .iter()
            .any(|start| name.starts_with(start))
    });
}

#[test]
fn what_sdxl_takes_beside_the_prompt_is_that_of_diffusers() {
    check_cases(|name| name.starts_with("controls"));
}

#[test]
fn prompts_read_plainly_are_those_of_diffusers() {
    check_cases(|name| name.starts_with("plain"));
}

#[test]
fn weights_breaks_and_long_prompts_are_those_of_the_web_ui() {
    check_cases(|name| name.starts_with("a1111"));
}

#[test]
fn image_to_image_is_that_of_diffusers() {
    check_cases(|name| name.starts_with("img2img"));
}

#[test]
fn the_same_weights_in_one_file_give_the_same_picture() {
    // The tiny model's head counts are not SDXL's: its configs lie beside the file.
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("single-file");
    copy_configs(&goldens().join("tiny-sdxl"), &place.join("config"));
    let file = place.join("tiny-sdxl.safetensors");
    fs::copy(goldens().join("single-file/tiny-sdxl.safetensors"), &file).unwrap();

    let request = Request {
        prompt: "a cat".into(),
        width: Some(64),
        height: Some(64),
        guidance_scale: Some(4.0),
        schedule: ScheduleOptions::steps(3),
        ..Request::default()
    };
    let [folder, file] = [goldens().join("tiny-sdxl"), file].map(|path| {
        let pipeline = Pipeline::load(&ModelSource::open(path).unwrap(), &LoadOptions::default()).unwrap();
        paint(&pipeline, &request)
    });
    assert_eq!(folder.1, file.1);
    assert_eq!(folder.0.pictures, file.0.pictures);
}

/// Everything of a model folder but the weights.
fn copy_configs(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_configs(&path, &target);
        } else if path.extension().is_some_and(|e| e != "safetensors") {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn tiny() -> Pipeline {
    let case = cases().into_iter().find(|c| c["name"] == "turbo-2").unwrap();
    pipeline(&case)
}

#[test]
fn with_philox_a_picture_does_not_depend_on_its_batch() {
    let pipeline = tiny();
    let mut request = Request {
        prompt: "a cat".into(),
        seed: 5,
        num_images: 3,
        ..Request::default()
    };
    request.schedule.num_inference_steps = Some(2);
    let three = paint(&pipeline, &request).0.pictures;
    request.num_images = 1;
    let one = paint(&pipeline, &request).0.pictures;
    assert_eq!(one[0], three[0]);
    assert_ne!(three[0], three[1]);
}

#[test]
fn breaking_in_the_callback_cancels() {
    let pipeline = tiny();
    let request = Request {
        prompt: "a cat".into(),
        schedule: ScheduleOptions::steps(4),
        ..Request::default()
    };
    let mut steps = 0;
    let error = pipeline
        .paint(&request, &mut |progress| match progress {
            Progress::Step { done, .. } => {
                steps = done;
                if done == 2 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            }
            _ => ControlFlow::Continue(()),
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "cancelled");
    assert_eq!(steps, 2);

    // Between the layers too: the very first tick stops it.
    let error = pipeline
        .paint(&request, &mut |progress| match progress {
            Progress::Tick => ControlFlow::Break(()),
            Progress::Step { .. } => panic!("a step was completed after the cancellation"),
            _ => ControlFlow::Continue(()),
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "cancelled");
}

#[test]
fn a_prompt_is_encoded_once() {
    let pipeline = tiny();
    let encoders = &pipeline.parts().text_encoders;
    let encode = |clip_skip| {
        let reading = Reading {
            prompt: "a cat".into(),
            clip_skip,
            ..Reading::default()
        };
        encoders.encode(&reading).unwrap().0
    };
    let (first, again) = (encode(0), encode(0));
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    let skipped = encode(1);
    assert_ne!(first.prompt_embeds.data(), skipped.prompt_embeds.data());
}

#[test]
fn what_has_no_effect_is_said() {
    let pipeline = tiny();
    let request = Request {
        prompt: "a cat".into(),
        negative_prompt: Some("dogs".into()),
        guidance_scale: Some(0.0),
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    };
    let said = |request: &Request| paint(&pipeline, request).0.warnings.join("\n");
    // The advice does not go in a circle: neither "more than 1" and then "use 0", nor the other way round.
    let unguided = said(&request);
    assert!(
        unguided.contains("negative prompt has no effect") && !unguided.contains("more than 1"),
        "{unguided}"
    );
    let guided = said(&Request {
        guidance_scale: Some(5.0),
        ..request.clone()
    });
    assert!(
        guided.contains("distilled to work without guidance") && !guided.contains("use 0"),
        "{guided}"
    );
    let many = Request {
        schedule: ScheduleOptions::steps(20),
        negative_prompt: None,
        ..request
    };
    assert!(said(&many).contains("distilled for 1, 2, 3, 4 steps, not 20"));
}

#[test]
fn bf16_weights_paint_nearly_the_same_picture() {
    let case = &cases()[0];
    let folder = goldens().join(case["folder"].as_str().unwrap());
    let [wide, narrow] = [DType::F32, DType::BF16].map(|dtype| {
        let source = ModelSource::open(&folder).unwrap();
        let pipeline = Pipeline::load(&source, &LoadOptions::of(dtype)).unwrap();
        let response = pipeline
            .paint(&request(case), &mut |_| ControlFlow::Continue(()))
            .unwrap();
        response.pictures[0].rgb.clone()
    });
    assert_ne!(wide, narrow, "bf16 must make a difference, or it was not used");
    let squares: f64 = wide
        .iter()
        .zip(&narrow)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    let psnr = 10.0 * (255.0f64.powi(2) / (squares / wide.len() as f64)).log10();
    assert!(psnr > 30.0, "PSNR {psnr:.1} dB");
}
