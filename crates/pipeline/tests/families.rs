//! Every family of models paints diffusers' picture, from a folder and from a single file whose configs are told by its
//! tensors. goldens/families says what each case is, scripts/goldens/families.py how it was made.

mod common;

use common::tiny_models::{Layout, TinyModel};
use common::{cases, check_picture};
use prima_pipeline::{Error, Family, LoadOptions, Parts, Pipeline, Request, ScheduleOptions, families};
use prima_schedulers::SchedulerConfig;
use serde_json::{Value, json};
use std::ops::ControlFlow;

fn metadata(case: &Value) -> Vec<(String, String)> {
    let Some(pairs) = case["metadata"].as_object() else {
        return Vec::new();
    };
    pairs
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

/// Checks every picture of a family in every layout that it comes in.
fn check(family: &str) {
    check_cases(family, |case| case["mask"].is_null() && case["refiner"].is_null());
}

/// The same of those that are `wanted`.
fn check_cases(family: &str, wanted: impl Fn(&Value) -> bool) {
    let of_family = |case: &Value| case["family"] == family && wanted(case);
    let cases: Vec<Value> = cases("families").into_iter().filter(of_family).collect();
    assert!(!cases.is_empty(), "{family}");
    for case in &cases {
        for layout in case["layouts"].as_array().unwrap() {
            let layout = Layout::of(layout.as_str().unwrap());
            let mut pipeline = pipeline(case, family, layout);
            if let Some(refiner) = case["refiner"].as_str() {
                pipeline = pipeline.with_refiner(self::pipeline(case, refiner, layout)).unwrap();
            }
            check_picture(&pipeline, case, "families");
        }
    }
}

/// The model of a family with a case's scheduler, which its file has told what it could of.
fn pipeline(case: &Value, family: &str, layout: Layout) -> Pipeline {
    let model = TinyModel::new(family, layout, &metadata(case));
    let mut parts = Parts::load(&model.open(), &LoadOptions::default()).unwrap();
    let config = SchedulerConfig::from_json(&case["scheduler_config"].to_string()).unwrap();
    if layout != Layout::Folder {
        let told = parts.scheduler_config.prediction_type();
        assert_eq!(told, config.prediction_type(), "{} {layout:?}", case["name"]);
    }
    parts.scheduler_config = config;
    Pipeline::new(parts).unwrap()
}

#[test]
fn stable_diffusion_1_paints_diffusers_pictures() {
    check("sd15");
}

#[test]
fn stable_diffusion_2_and_sd_turbo_paint_diffusers_pictures() {
    check("sd21");
}

#[test]
fn lcm_on_stable_diffusion_1_paints_diffusers_picture() {
    check("lcm-dreamshaper");
}

#[test]
fn bk_sdm_and_tiny_sd_paint_diffusers_picture() {
    check("tiny-sd");
}

#[test]
fn sdxs_with_its_tiny_autoencoder_paints_diffusers_picture() {
    check("sdxs");
}

#[test]
fn sdxl_paints_diffusers_picture() {
    check("sdxl");
}

#[test]
fn ssd_1b_paints_diffusers_picture() {
    check("ssd-1b");
}

#[test]
fn segmind_vega_paints_diffusers_picture() {
    check("vega");
}

#[test]
fn koala_paints_diffusers_picture() {
    check("koala");
}

#[test]
fn playground_2_5_paints_diffusers_picture() {
    check("playground");
}

#[test]
fn cosxl_paints_diffusers_picture() {
    check("cosxl");
}

#[test]
fn painting_with_a_mask_is_that_of_diffusers_with_any_unet() {
    check_cases("sd15", |case| !case["mask"].is_null());
    check_cases("sdxl", |case| !case["mask"].is_null());
}

#[test]
fn unets_of_inpainting_paint_diffusers_pictures() {
    check_cases("sd15-inpaint", |_| true);
    check_cases("sdxl-inpaint", |_| true);
}

#[test]
fn a_refiner_paints_diffusers_picture_alone_and_after_a_base() {
    check_cases("sdxl-refiner", |_| true);
    check_cases("sdxl", |case| !case["refiner"].is_null());
}

#[test]
fn a_model_of_inpainting_that_is_given_no_mask_says_what_it_does() {
    let model = TinyModel::new("sd15-inpaint", Layout::Folder, &[]);
    let pipeline = Pipeline::load(&model.open(), &LoadOptions::default()).unwrap();
    let request = Request {
        prompt: "a cat".into(),
        width: Some(64),
        height: Some(64),
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    };
    let response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).unwrap();
    let said = response.warnings.join("\n");
    assert!(said.contains("an inpainting model"), "{said}");
}

#[test]
fn a_familys_models_take_its_own_settings_where_nobody_says_more() {
    let of = |family: &str, layout: Layout| {
        let model = TinyModel::new(family, layout, &[]);
        let pipeline = Pipeline::load(&model.open(), &LoadOptions::default()).unwrap();
        let d = pipeline.defaults().clone();
        (d.num_inference_steps, d.guidance_scale, d.width, d.height)
    };
    assert_eq!(of("sd15", Layout::Folder), (30, 7.5, 512, 512));
    assert_eq!(of("sd21", Layout::SingleFile), (30, 7.5, 768, 768));
    assert_eq!(of("lcm-dreamshaper", Layout::SingleFile), (4, 8.0, 512, 512));
    assert_eq!(of("sdxs", Layout::SingleFile), (1, 0.0, 512, 512));
    assert_eq!(of("tiny-sd", Layout::Hub), (30, 7.5, 512, 512));
    assert_eq!(of("koala", Layout::SingleFile), (30, 5.0, 1024, 1024));
}

#[test]
fn a_safety_checker_in_the_index_is_not_asked_for() {
    let model = TinyModel::new("sd15", Layout::Folder, &[]);
    model.edit("model_index.json", |index| {
        index["safety_checker"] = json!(["stable_diffusion", "StableDiffusionSafetyChecker"]);
        index["feature_extractor"] = json!(["transformers", "CLIPImageProcessor"]);
        index["requires_safety_checker"] = json!(true);
    });
    Parts::load(&model.open(), &LoadOptions::default()).unwrap();
}

#[test]
fn a_scheduler_that_prima_does_not_have_is_replaced_and_named() {
    let model = TinyModel::new("sd15", Layout::Folder, &[]);
    model.edit("scheduler/scheduler_config.json", |config| {
        config["_class_name"] = json!("SASolverScheduler");
    });
    let paint = |pipeline: &Pipeline, schedule: ScheduleOptions| {
        let request = Request {
            prompt: "a cat".into(),
            width: Some(64),
            height: Some(64),
            schedule,
            ..Request::default()
        };
        pipeline.paint(&request, &mut |_| ControlFlow::Continue(()))
    };
    let pipeline = Pipeline::load(&model.open(), &LoadOptions::default()).unwrap();
    let warnings = |schedule| paint(&pipeline, schedule).unwrap().warnings.join("\n");
    let said = warnings(ScheduleOptions::steps(1));
    assert!(
        said.contains("SASolverScheduler, which prima does not have: euler takes the steps"),
        "{said}"
    );
    let chosen = ScheduleOptions {
        scheduler: Some("ddim".parse().unwrap()),
        ..ScheduleOptions::steps(1)
    };
    assert!(!warnings(chosen).contains("SASolver"));
    // Another noise process is another matter: only who asks can say what will do.
    model.edit("scheduler/scheduler_config.json", |config| {
        config["_class_name"] = json!("VQDiffusionScheduler");
        config["num_vec_classes"] = json!(4097);
    });
    let pipeline = Pipeline::load(&model.open(), &LoadOptions::default()).unwrap();
    let error = paint(&pipeline, ScheduleOptions::steps(1)).unwrap_err();
    assert!(error.to_string().contains("VQDiffusionScheduler"), "{error}");
    let chosen = ScheduleOptions {
        scheduler: Some("euler".parse().unwrap()),
        ..ScheduleOptions::steps(1)
    };
    paint(&pipeline, chosen).unwrap();
}

#[test]
fn models_for_other_tasks_are_refused_by_name() {
    let model = TinyModel::new("sd15", Layout::Folder, &[]);
    let refused = || match Family::of(&model.open()) {
        Err(Error::Model { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    let class = |name: &str| model.edit("model_index.json", |index| index["_class_name"] = json!(name));
    class("FluxPipeline");
    assert_eq!(
        refused(),
        "its pipeline is FluxPipeline; only models of these families are supported: Stable Diffusion 1.x/2.x, SDXL"
    );
    class("StableDiffusionInstructPix2PixPipeline");
    assert!(refused().starts_with("its pipeline is StableDiffusionInstructPix2PixPipeline"));
    class("StableDiffusionInpaintPipeline");
    model.edit("unet/config.json", |config| config["in_channels"] = json!(8));
    assert_eq!(
        refused(),
        "its UNet is made for editing by instructions (8 input channels); use the text-to-image model that it comes from"
    );
    model.edit("unet/config.json", |config| config["in_channels"] = json!(9));
    Family::of(&model.open()).unwrap();
}

#[test]
fn one_component_can_be_loaded_with_its_parameters_by_name() {
    let model = TinyModel::new("tiny-sd", Layout::Hub, &[]);
    let source = model.open();
    let (unet, params) = families::read(&source, "unet", |reader| {
        let unet = families::load_unet(&source, reader)?;
        Ok((unet, reader.params().to_vec()))
    })
    .unwrap();
    assert_eq!(unet.config().block_out_channels, [32, 64, 64]);
    assert!(
        params
            .iter()
            .any(|(key, _)| key == "up_blocks.1.upsamplers.0.conv.weight")
    );
    // A component that is read in part is an error: nothing of a file is passed over.
    let error = families::read(&source, "unet", |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("tensors were never read"), "{error}");
}

#[test]
fn words_that_a_model_learnt_nothing_of_are_named_where_it_says_which_it_did() {
    let model = TinyModel::new("sdxl", Layout::Folder, &[]);
    let load = || Pipeline::load(&model.open(), &LoadOptions::default()).unwrap();
    let warnings = |pipeline: &Pipeline| {
        let request = Request {
            prompt: "a Cat and a (zebra:1.2)".into(),
            width: Some(64),
            height: Some(64),
            schedule: ScheduleOptions::steps(1),
            ..Request::default()
        };
        let response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).unwrap();
        response.warnings.join("\n")
    };
    let silent = load();
    assert!(!warnings(&silent).contains("zebra"));
    let learnt = silent.parts().text_encoders.known_words(["a cat"].into_iter());
    learnt.unwrap().unwrap().write(&model.path).unwrap();
    let said = warnings(&load());
    assert!(said.contains("the model saw no pictures of \"zebra\""), "{said}");
    assert!(!said.contains("\"cat\"") && !said.contains("\"and\""), "{said}");
}
