//! ControlNets against diffusers, from folders and files: goldens/controlnets says what each case is,
//! scripts/goldens/controlnets.py how it was made.

mod common;

use common::tiny_models::{Layout, TinyModel, controlnet};
use common::{cases, check_picture_of};
use prima_pipeline::{
    Control, ControlNetOptions, Gray, LoadOptions, Pipeline, Preprocessor, Request, ScheduleOptions, check_room,
};
use prima_schedulers::SchedulerConfig;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;

fn names(case: &Value) -> Vec<String> {
    let names = case["controls"].as_array().unwrap().iter();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// A case's request, with its ControlNets.
fn request(case: &Value) -> Request {
    let share = |key: &str, i: usize| case[key][i].as_f64();
    let control = |(i, name): (usize, String)| Control {
        scale: share("scales", i).unwrap_or(1.0),
        start: share("starts", i).unwrap_or(0.0),
        end: share("ends", i).unwrap_or(1.0),
        ..Control::new(name, common::picture(case, "controlnets", &format!("control_{i}")))
    };
    let mut request = common::request(case, "controlnets");
    request.controls = names(case).into_iter().enumerate().map(control).collect();
    request
}

fn pipeline(family: &str, config: Option<&Value>, controlnets: ControlNetOptions) -> Pipeline {
    let model = TinyModel::new(family, Layout::Folder, &[]);
    if let Some(config) = config {
        // As the model's own.
        SchedulerConfig::from_json(&config.to_string()).unwrap();
        model.edit("scheduler/scheduler_config.json", |own| *own = config.clone());
    }
    let options = LoadOptions {
        controlnets,
        ..LoadOptions::default()
    };
    Pipeline::load(&model.open(), &options).unwrap()
}

#[test]
fn the_room_that_a_request_needs_counts_its_controlnets() {
    let place = tempfile::TempDir::new().unwrap();
    let case = cases("controlnets")
        .into_iter()
        .find(|case| case["family"] == "sd15")
        .unwrap();
    let name = names(&case).swap_remove(0);
    let path = controlnet(&name, Layout::SingleFile, place.path());
    let bytes = path.metadata().unwrap().len() as usize;
    let model = TinyModel::new("sd15", Layout::Folder, &[]);
    let steered = Request {
        controls: request(&case).controls.into_iter().take(1).collect(),
        ..request(&case)
    };
    let plain = Request {
        controls: Vec::new(),
        ..steered.clone()
    };
    let fits = |request: &Request, most: usize| {
        let options = LoadOptions {
            max_memory: Some(most),
            controlnets: ControlNetOptions {
                folder: None,
                files: vec![(name.clone(), path.clone())],
            },
            ..LoadOptions::default()
        };
        check_room(&model.open(), &options, request).is_ok()
    };
    // The least that is enough without it, to 4 KiB.
    let (mut too_little, mut enough) = (0, 1 << 30);
    while enough - too_little > 4096 {
        let middle = usize::midpoint(too_little, enough);
        if fits(&plain, middle) {
            enough = middle;
        } else {
            too_little = middle;
        }
    }
    assert!(!fits(&steered, enough + bytes / 2));
    assert!(fits(&steered, enough + bytes));
}

/// Checks the cases of a family with ControlNets that lie in `layout`.
fn check(family: &str, layout: Layout) {
    let place = tempfile::TempDir::new().unwrap();
    let cases: Vec<Value> = cases("controlnets")
        .into_iter()
        .filter(|case| case["family"] == family)
        .collect();
    assert!(!cases.is_empty());
    for case in &cases {
        let file = |name: String| (name.clone(), controlnet(&name, layout, place.path()));
        let options = ControlNetOptions {
            folder: None,
            files: names(case).into_iter().map(file).collect(),
        };
        let pipeline = pipeline(family, Some(&case["scheduler_config"]), options);
        check_picture_of(&pipeline, &request(case), case, "controlnets");
    }
}

#[test]
fn controlnets_of_sdxl_steer_as_in_diffusers() {
    check("sdxl", Layout::Folder);
}

#[test]
fn controlnets_of_stable_diffusion_1_steer_as_in_diffusers() {
    check("sd15", Layout::Folder);
}

#[test]
fn controlnets_in_one_file_are_those_of_the_folder() {
    check("sd15", Layout::SingleFile);
    check("sdxl", Layout::Hub);
}

fn asked(name: &str) -> Request {
    Request {
        prompt: "a cat".into(),
        width: Some(64),
        height: Some(64),
        schedule: ScheduleOptions::steps(2),
        controls: vec![Control::new(name, Gray::flat(32, 48, 200).to_picture())],
        ..Request::default()
    }
}

fn refused(pipeline: &Pipeline, request: &Request) -> String {
    let painted = pipeline.paint(request, &mut |_| ControlFlow::Continue(()));
    painted.unwrap_err().to_string()
}

#[test]
fn controlnets_are_found_in_a_folder_by_their_names_and_read_when_they_are_asked_for() {
    let place = tempfile::TempDir::new().unwrap();
    let file = controlnet("sd15-pose", Layout::SingleFile, place.path());
    controlnet("sdxl-canny", Layout::Folder, place.path());
    let options = ControlNetOptions {
        folder: Some(place.path().to_path_buf()),
        files: Vec::new(),
    };
    let pipeline = pipeline("sd15", None, options);
    assert_eq!(pipeline.controlnets(), ["sd15-pose", "sdxl-canny"]);
    let paint = |request: &Request| {
        let painted = pipeline.paint(request, &mut |_| ControlFlow::Continue(()));
        painted.unwrap().pictures.swap_remove(0)
    };
    let (steered, free) = (
        paint(&asked("sd15-pose")),
        paint(&Request {
            controls: Vec::new(),
            ..asked("")
        }),
    );
    assert_ne!(steered, free);
    // Once read it stays.
    std::fs::write(&file, "no longer a file of weights").unwrap();
    assert_eq!(paint(&asked("sd15-pose")), steered);

    assert_eq!(
        refused(&pipeline, &asked("../../etc/passwd")),
        "controlnet \"../../etc/passwd\" is not possible: use one of sd15-pose, sdxl-canny"
    );
    let wrong = refused(&pipeline, &asked("sdxl-canny"));
    let folder = place.path().join("sdxl-canny");
    assert!(wrong.starts_with(&folder.display().to_string()), "{wrong}");
    assert!(
        wrong.contains("cross_attention_dim does not fit: it reads texts of [192] channels"),
        "{wrong}"
    );
}

#[test]
fn what_is_no_controlnet_or_cannot_steer_is_refused() {
    let place = tempfile::TempDir::new().unwrap();
    let file = common::written(
        place.path(),
        "vae.safetensors",
        &[("decoder.conv_in.weight", &[8, 4, 3, 3])],
    );
    let named = |path: &Path| ControlNetOptions {
        folder: None,
        files: vec![("x".to_owned(), path.to_path_buf())],
    };
    let pipeline = pipeline("sd15", None, named(&file));
    let message = refused(&pipeline, &asked("x"));
    assert!(
        message.contains("vae.safetensors") && message.contains("input_hint_block."),
        "{message}"
    );
    let of = |control: Control| {
        refused(
            &pipeline,
            &Request {
                controls: vec![control],
                ..asked("x")
            },
        )
    };
    let control = || Control::new("x", Gray::flat(8, 8, 0).to_picture());
    let late = of(Control {
        start: 0.5,
        end: 0.4,
        ..control()
    });
    assert!(late.contains("control_guidance_end 0.4 is not possible"), "{late}");
    assert!(
        of(Control {
            scale: f64::NAN,
            ..control()
        })
        .contains("controlnet_conditioning_scale")
    );
    let many = Request {
        controls: vec![control(); 9],
        ..asked("x")
    };
    assert!(refused(&pipeline, &many).contains("use at most 8"));
}

#[test]
fn edges_are_found_before_a_network_reads_them() {
    let place = tempfile::TempDir::new().unwrap();
    let options = ControlNetOptions {
        folder: None,
        files: vec![("pose".to_owned(), controlnet("sd15-pose", Layout::Folder, place.path()))],
    };
    let pipeline = pipeline("sd15", None, options);
    let mut gray = Gray::flat(64, 64, 30);
    gray.values[64 * 20..64 * 40].fill(220);
    let paint = |preprocessor, picture| {
        let control = Control {
            preprocessor,
            ..Control::new("pose", picture)
        };
        let request = Request {
            controls: vec![control],
            ..asked("")
        };
        let painted = pipeline.paint(&request, &mut |_| ControlFlow::Continue(()));
        painted.unwrap().pictures.swap_remove(0)
    };
    let picture = gray.to_picture();
    let edges = prima_picture::canny(&picture, 100, 200);
    assert_eq!(
        paint(Preprocessor::Canny, picture.clone()),
        paint(Preprocessor::None, edges)
    );
    assert_ne!(
        paint(Preprocessor::Scribble, picture.clone()),
        paint(Preprocessor::None, picture)
    );
}
