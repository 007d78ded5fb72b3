//! Models as people have them: networks in files of their own, names that say how many steps, files in 8-bit floats.

mod common;

use common::tiny_models::{Layout, TinyModel};
use common::{cases, check_picture};
use prima_checkpoint::{TensorFile, export};
use prima_pipeline::{LoadOptions, ModelSource, Parts, Pipeline, Request, Response, ScheduleOptions};
use prima_schedulers::{PredictionType, SchedulerConfig, SchedulerKind};
use prima_tensor::{DType, Param};
use serde_json::{Value, json};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

fn case_of(family: &str) -> Value {
    let mut all = cases("families").into_iter();
    all.find(|case| case["family"] == family).unwrap()
}

/// Checks diffusers' picture of a family, by its case's own scheduler.
fn check(source: &ModelSource, family: &str) {
    let case = case_of(family);
    let mut parts = Parts::load(source, &LoadOptions::default()).unwrap();
    parts.scheduler_config = SchedulerConfig::from_json(&case["scheduler_config"].to_string()).unwrap();
    check_picture(&Pipeline::new(parts).unwrap(), &case, "families");
}

/// The tensors of `from` whose keys begin with `prefix`, under what is left of them in `to`; and without them in `rest`.
fn split(from: &Path, prefix: &str, to: &Path, rest: &Path) {
    let file = TensorFile::open(from).unwrap();
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    for key in file.tensors().keys() {
        let param = Param::new(file.read(key).unwrap());
        match key.strip_prefix(prefix) {
            Some(bare) => taken.push((bare.to_owned(), param)),
            None => left.push((key.clone(), param)),
        }
    }
    export::write_safetensors(to, &taken, DType::F32).unwrap();
    export::write_safetensors(rest, &left, DType::F32).unwrap();
}

fn paint(pipeline: &Pipeline, request: Request) -> Response {
    let request = Request {
        prompt: "a cat".into(),
        width: Some(64),
        height: Some(64),
        ..request
    };
    pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn a_unet_of_another_file_stands_in_for_the_models() {
    for family in ["sdxl", "ssd-1b", "sd15"] {
        let model = TinyModel::new(family, Layout::Folder, &[]);
        let file = model.path.join("other.safetensors");
        fs::rename(model.path.join("unet/diffusion_pytorch_model.safetensors"), &file).unwrap();
        check(&model.open().with_part("unet", &file).unwrap(), family);
        // As ComfyUI has it.
        let single = TinyModel::new(family, Layout::SingleFile, &[]);
        let (unet, rest) = (
            single.place.path().join("unet.safetensors"),
            single.place.path().join("rest.safetensors"),
        );
        split(&single.path, "model.diffusion_model.", &unet, &rest);
        check(&model.open().with_part("unet", &unet).unwrap(), family);
    }
}

#[test]
fn a_file_without_an_autoencoder_takes_one_of_another_file() {
    for family in ["sdxl", "sd15"] {
        let model = TinyModel::new(family, Layout::SingleFile, &[]);
        let (vae, rest) = (
            model.place.path().join("vae.SAFETENSORS"),
            model.place.path().join("model.sft"),
        );
        split(&model.path, "first_stage_model.", &vae, &rest);
        let source = ModelSource::open(&rest).unwrap();
        let error = Parts::load(&source, &LoadOptions::default()).err().unwrap().to_string();
        assert!(error.contains("has no vae") && error.contains("--vae"), "{error}");
        check(&source.with_part("vae", &vae).unwrap(), family);
        // In diffusers' names.
        let folder = TinyModel::new(family, Layout::Folder, &[]);
        let vae = folder.path.join("vae/diffusion_pytorch_model.safetensors");
        check(
            &ModelSource::open(&rest).unwrap().with_part("vae", &vae).unwrap(),
            family,
        );
    }
}

#[test]
fn text_encoders_of_other_files_make_a_unet_a_model() {
    let model = TinyModel::new("sdxl", Layout::SingleFile, &[]);
    let place = model.place.path();
    let file = |name: &str| place.join(name);
    split(
        &model.path,
        "conditioner.embedders.0.transformer.",
        &file("clip_l.safetensors"),
        &file("a.safetensors"),
    );
    split(
        &file("a.safetensors"),
        "conditioner.embedders.1.model.",
        &file("clip_g.safetensors"),
        &file("model.safetensors"),
    );
    let alone = ModelSource::open(file("model.safetensors")).unwrap();
    let error = Parts::load(&alone, &LoadOptions::default()).err().unwrap().to_string();
    assert!(error.contains("--unet"), "{error}");
    let source = alone.with_part("text_encoder", &file("clip_l.safetensors")).unwrap();
    check(
        &source.with_part("text_encoder_2", &file("clip_g.safetensors")).unwrap(),
        "sdxl",
    );
}

#[test]
fn a_part_of_another_family_or_kind_is_refused_with_both_names() {
    let (xl, sd) = (
        TinyModel::new("sdxl", Layout::Folder, &[]),
        TinyModel::new("sd15", Layout::Folder, &[]),
    );
    let unet = sd.path.join("unet/diffusion_pytorch_model.safetensors");
    let error = xl.open().with_part("unet", &unet).unwrap_err().to_string();
    assert!(
        error.contains("a UNet of Stable Diffusion 1.x") && error.contains("is of SDXL"),
        "{error}"
    );
    let error = xl.open().with_part("vae", &unet).unwrap_err().to_string();
    assert!(error.contains("it holds no vae"), "{error}");
}

#[test]
fn a_file_in_a_components_folder_may_have_a_name_of_its_own() {
    let model = TinyModel::new("sdxl", Layout::Folder, &[]);
    let unet = model.path.join("unet");
    fs::rename(
        unet.join("diffusion_pytorch_model.safetensors"),
        unet.join("sdxl_unet.safetensors"),
    )
    .unwrap();
    check(&model.open(), "sdxl");
}

#[test]
fn a_name_that_tells_a_few_step_model_sets_what_is_not_asked_for_and_says_so() {
    let model = TinyModel::new("sdxl", Layout::SingleFile, &[]);
    let path = model.place.path().join("sdxl_lightning_4step.safetensors");
    fs::rename(&model.path, &path).unwrap();
    fs::rename(
        model.place.path().join("model.config"),
        model.place.path().join("config"),
    )
    .unwrap();
    let pipeline = Pipeline::load(&ModelSource::open(&path).unwrap(), &LoadOptions::default()).unwrap();
    let bare = paint(&pipeline, Request::default());
    assert_eq!((bare.num_inference_steps, bare.guidance_scale), (4, 0.0));
    assert_eq!(
        (bare.scheduler, bare.timestep_spacing.as_str()),
        (SchedulerKind::Euler, "trailing")
    );
    let said = bare.warnings.join("\n");
    assert!(said.contains("SDXL-Lightning") && said.contains("distilled"), "{said}");
    // A request's own values win, and guidance that the name does not allow says that the name misleads.
    let guided = paint(
        &pipeline,
        Request {
            guidance_scale: Some(5.0),
            schedule: ScheduleOptions::steps(3),
            ..Request::default()
        },
    );
    assert_eq!(
        (guided.num_inference_steps, guided.timestep_spacing.as_str()),
        (3, "leading")
    );
    assert!(
        guided.warnings.join("\n").contains("sounds like SDXL-Lightning"),
        "{:?}",
        guided.warnings
    );
}

#[test]
fn a_title_in_the_metadata_needs_no_warning() {
    let title = ("modelspec.title".to_owned(), "DMD2 SDXL 4 step".to_owned());
    let model = TinyModel::new("sdxl", Layout::SingleFile, &[title]);
    let pipeline = Pipeline::load(&model.open(), &LoadOptions::default()).unwrap();
    let bare = paint(&pipeline, Request::default());
    assert_eq!(bare.scheduler, SchedulerKind::Lcm);
    assert_eq!(bare.timesteps, [999.0, 749.0, 499.0, 249.0]);
    assert!(
        !bare.warnings.iter().any(|warning| warning.contains("taken for")),
        "{:?}",
        bare.warnings
    );
}

#[test]
fn what_a_network_predicts_can_be_said_where_no_file_does() {
    let model = TinyModel::new("sdxl", Layout::SingleFile, &[]);
    let options = LoadOptions {
        prediction_type: Some(PredictionType::VPrediction),
        zero_snr: true,
        ..LoadOptions::default()
    };
    let config = Parts::load(&model.open(), &options).unwrap().scheduler_config;
    assert_eq!(config.prediction_type(), PredictionType::VPrediction);
    assert_eq!(config.rescale_betas_zero_snr, Some(true));
}

#[test]
fn models_of_edm_noise_start_at_their_largest_sigma() {
    let model = TinyModel::new("sdxl", Layout::Folder, &[]);
    model.edit("scheduler/scheduler_config.json", |config| {
        *config = json!({
            "_class_name": "EDMEulerScheduler", "sigma_min": 0.002, "sigma_max": 120.0, "sigma_data": 1.0,
            "sigma_schedule": "exponential", "prediction_type": "v_prediction",
        });
    });
    let pipeline = Pipeline::load(&model.open(), &LoadOptions::default()).unwrap();
    for scheduler in [None, Some(SchedulerKind::Heun), Some(SchedulerKind::DpmPlusPlus2M)] {
        let response = paint(
            &pipeline,
            Request {
                schedule: ScheduleOptions {
                    scheduler,
                    ..ScheduleOptions::steps(4)
                },
                ..Request::default()
            },
        );
        assert_eq!(response.sigmas[0], 120.0);
        assert!(
            (response.timesteps[0] - 0.25 * 120.0_f64.ln()).abs() < 1e-6,
            "what the network is told"
        );
    }
}
