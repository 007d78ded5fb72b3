//! Pictures that diffusers painted, as the scripts in `scripts/goldens` left them, and how close ours must be.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod tiny_models;

use prima_checkpoint::TensorFile;
use prima_pipeline::{
    Gray, InitImage, Mask, Picture, Pipeline, Progress, PromptSyntax, Request, Response, Rng, ScheduleOptions,
};
use prima_tensor::{DType, Param, Tensor, nhwc_to_nchw};
use serde_json::Value;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens")
}

/// Writes a file of zeros with these keys and shapes.
pub fn written(folder: &Path, name: &str, tensors: &[(&str, &[usize])]) -> PathBuf {
    let path = folder.join(name);
    let params: Vec<_> = tensors
        .iter()
        .map(|(key, shape)| ((*key).to_owned(), Param::new(Tensor::zeros(shape))))
        .collect();
    prima_checkpoint::write_safetensors(&path, &params, DType::F32).unwrap();
    path
}

pub fn cases(kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(goldens().join(kind).join("cases.json")).unwrap();
    // Python writes an infinity, which JSON does not have.
    serde_json::from_str(&text.replace("-Infinity", "null")).unwrap()
}

/// u8 tensors of a case's file, as bytes.
fn bytes(kind: &str, file: &str, key: &str) -> (Vec<usize>, Vec<u8>) {
    let content = fs::read(goldens().join(kind).join(file)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&content).unwrap();
    let view = tensors.tensor(key).unwrap();
    (view.shape().to_vec(), view.data().to_vec())
}

/// A picture of a case's file.
pub fn picture(case: &Value, kind: &str, key: &str) -> Picture {
    let (shape, rgb) = bytes(kind, case["file"].as_str().unwrap(), key);
    Picture {
        width: shape[1],
        height: shape[0],
        rgb,
    }
}

pub fn request(case: &Value, kind: &str) -> Request {
    let number = |key: &str| case[key].as_f64();
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let size = |key: &str| case[key].as_u64().map(|v| v as usize);
    let pair = |key: &str| {
        case[key]
            .as_array()
            .map(|a| [a[0].as_u64().unwrap() as usize, a[1].as_u64().unwrap() as usize])
    };
    let init_image = case["strength"].as_f64().map(|strength| InitImage {
        picture: picture(case, kind, "init_image"),
        strength: Some(strength),
    });
    let timesteps: Option<Vec<f64>> = case["timesteps"]
        .as_array()
        .map(|t| t.iter().map(|t| t.as_f64().unwrap()).collect());
    // Timesteps that a spacing gives are asked for by its name.
    let spacing = case["timestep_spacing"].as_str().map(|name| name.parse().unwrap());
    let num_inference_steps = size("num_inference_steps").or(timesteps.as_ref().map(Vec::len));
    // The cases carry diffusers' eta argument, which its pipelines hand to DDIM and TCD only.
    let class = case["scheduler_config"]["_class_name"].as_str().unwrap();
    let eta = number("eta").filter(|_| matches!(class, "DDIMScheduler" | "TCDScheduler"));
    Request {
        prompt: text("prompt").unwrap(),
        prompt_2: text("prompt_2"),
        prompt_syntax: text("prompt_syntax")
            .map_or(Ok(PromptSyntax::Auto), |name| name.parse())
            .unwrap(),
        negative_prompt: text("negative_prompt"),
        negative_prompt_2: text("negative_prompt_2"),
        guidance_scale: number("guidance_scale"),
        guidance_rescale: number("guidance_rescale").unwrap_or(0.0),
        seed: case["seed"].as_u64().unwrap(),
        rng: Rng::TorchCpu,
        width: size("width"),
        height: size("height"),
        num_images: size("num_images_per_prompt").unwrap(),
        schedule: ScheduleOptions {
            num_inference_steps,
            timesteps: timesteps.filter(|_| spacing.is_none()),
            spacing,
            eta,
            ..ScheduleOptions::default()
        },
        clip_skip: size("clip_skip").unwrap_or(0),
        original_size: pair("original_size"),
        crops_coords_top_left: pair("crops_coords_top_left").unwrap_or_default(),
        target_size: pair("target_size"),
        denoising_start: number("denoising_start"),
        denoising_end: number("denoising_end"),
        refiner_switch_at: number("switch_at"),
        init_image,
        mask: case.get("mask").map(|mask| {
            let (shape, values) = bytes(kind, case["file"].as_str().unwrap(), "mask");
            let gray = Gray {
                width: shape[1],
                height: shape[0],
                values,
            };
            Mask {
                padding_px: mask["padding"].as_u64().map(|px| px as usize),
                // As diffusers gives it.
                keeps_original: false,
                ..Mask::new(gray)
            }
        }),
        ..Request::default()
    }
}

/// The response and the latents after each step, one tensor `[steps, B, C, h, w]`.
pub fn paint(pipeline: &Pipeline, request: &Request) -> (Response, Vec<f32>) {
    let mut trajectory = Vec::new();
    let response = pipeline.paint(request, &mut |progress| {
        if let Progress::Step { latents, .. } = progress {
            trajectory.extend_from_slice(nhwc_to_nchw(latents).data());
        }
        ControlFlow::Continue(())
    });
    (response.unwrap(), trajectory)
}

fn check_latents(name: &str, found: &[f32], expected: &Tensor) {
    assert_eq!(found.len(), expected.numel(), "{name}: length of the trajectory");
    let largest = expected.data().iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let worst = found
        .iter()
        .zip(expected.data())
        .fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(
        worst <= 1e-4 * largest,
        "{name}: latents differ by {worst}, largest value {largest}"
    );
}

fn check_pixels(name: &str, found: &[Picture], expected: &[u8], most: u32) {
    let found: Vec<u8> = found.iter().flat_map(|p| p.rgb.iter().copied()).collect();
    assert_eq!(found.len(), expected.len(), "{name}: number of bytes");
    let differences: Vec<u32> = found
        .iter()
        .zip(expected)
        .map(|(a, b)| u32::from(a.abs_diff(*b)))
        .collect();
    let mean = f64::from(differences.iter().sum::<u32>()) / differences.len() as f64;
    let largest = differences.iter().max().copied().unwrap_or(0);
    assert!(
        mean < 0.5 && largest <= most,
        "{name}: mean difference {mean}, largest {largest}"
    );
}

/// Paints `case` of the goldens' folder `kind`, and compares every step's latents and the pixels.
pub fn check_picture(pipeline: &Pipeline, case: &Value, kind: &str) {
    check_picture_of(pipeline, &request(case, kind), case, kind);
}

/// The same of a request that says more than [`request`] reads of its case.
pub fn check_picture_of(pipeline: &Pipeline, request: &Request, case: &Value, kind: &str) {
    let (name, file) = (case["name"].as_str().unwrap(), case["file"].as_str().unwrap());
    let (response, trajectory) = paint(pipeline, request);
    let golden = TensorFile::open(&goldens().join(kind).join(file)).unwrap();
    check_latents(name, &trajectory, &golden.read("trajectory").unwrap());
    check_pixels(name, &response.pictures, &bytes(kind, file, "pixels").1, 2);
}
