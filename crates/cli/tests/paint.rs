//! What `prima paint` and `prima models info` give when all is well.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{folder, golden, paint, prima, stderr};
use prima_picture::{Picture, read_parameters};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn pixels(path: &Path) -> Picture {
    Picture::decode(&fs::read(path).unwrap(), "test").unwrap()
}

fn json(output: &std::process::Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn it_prints_the_path_and_the_file_says_how_it_was_painted() {
    let folder = folder("plain");
    let args = [
        "--steps",
        "2",
        "--seed",
        "7",
        "--guidance-scale",
        "4",
        "--negative-prompt",
        "dogs, cats",
    ];
    let output = paint(&folder, &golden("tiny-sdxl"), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out.png\n");
    let png = fs::read(folder.join("out.png")).unwrap();
    let parameters = read_parameters(&png).unwrap().unwrap();
    assert_eq!(
        (parameters.prompt.as_str(), parameters.negative_prompt.as_str()),
        ("a cat", "dogs, cats")
    );
    let expected = [
        ("Steps", "2"),
        ("Sampler", "Euler"),
        ("CFG scale", "4"),
        ("Seed", "7"),
        ("Size", "64x64"),
        ("Model", "tiny-sdxl"),
    ];
    for (key, value) in expected {
        assert_eq!(parameters.get(key), Some(value), "{key}");
    }
}

#[test]
fn the_same_seed_paints_the_same_picture_whatever_the_threads() {
    let folder = folder("seeds");
    let model = golden("tiny-sdxl").display().to_string();
    let run = |name: &str, more: &[&str]| {
        let args = ["paint", "a cat", "--model", &model, "--steps", "2", "-o", name];
        let output = prima(&folder, &[&args, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        pixels(&folder.join(name))
    };
    let one = run("1.png", &["--seed", "1"]);
    assert_eq!(one, run("2.png", &["--seed", "1", "--threads", "1"]));
    assert_ne!(one, run("3.png", &["--seed", "2"]));
    assert_ne!(one, run("4.png", &["--seed", "1", "--rng", "torch-cpu"]));
}

#[test]
fn guidance_rescale_clip_skip_and_the_size_conditioning_change_the_picture() {
    let folder = folder("conditioning");
    let model = golden("tiny-sdxl").display().to_string();
    let run = |name: &str, more: &[&str]| {
        let fixed = ["--steps", "2", "--seed", "1", "--guidance-scale", "5"];
        let args = [&["paint", "a cat", "--model", &model, "-o", name], &fixed[..], more].concat();
        let output = prima(&folder, &args);
        assert!(output.status.success(), "{}", stderr(&output));
        pixels(&folder.join(name))
    };
    let plain = run("plain.png", &[]);
    let painted = [
        "--original-size",
        "64x64",
        "--crops-coords-top-left",
        "0,0",
        "--target-size",
        "64x64",
    ];
    assert_eq!(plain, run("same.png", &painted), "the sizes that hold anyway");
    for (name, args) in [
        ("rescale.png", ["--guidance-rescale", "0.7"]),
        ("skip.png", ["--clip-skip", "1"]),
        ("original.png", ["--original-size", "512x256"]),
        ("crop.png", ["--crops-coords-top-left", "16,0"]),
        ("target.png", ["--target-size", "128x64"]),
    ] {
        assert_ne!(plain, run(name, &args), "{name}");
    }
    let said = |name: &str, key: &str| {
        let png = fs::read(folder.join(name)).unwrap();
        let parameters = read_parameters(&png).unwrap().unwrap();
        parameters.get(key).map(str::to_owned)
    };
    assert_eq!(said("rescale.png", "Guidance rescale").as_deref(), Some("0.7"));
    assert_eq!(said("skip.png", "Clip skip").as_deref(), Some("2"));
    assert_eq!(said("original.png", "Original size").as_deref(), Some("512x256"));
    assert_eq!(said("crop.png", "Crop top left").as_deref(), Some("16 0"));
    assert_eq!(said("target.png", "Target size").as_deref(), Some("128x64"));
    assert_eq!(said("plain.png", "Clip skip"), None);
}

#[test]
fn repeat_measures_a_warm_model() {
    let folder = folder("repeat");
    let said = json(&paint(
        &folder,
        &golden("tiny-sdxl"),
        &["--steps", "1", "--repeat", "3", "--json"],
    ));
    assert_eq!(said["warm_ms"]["pictures"], 3);
    for key in ["text", "steps", "decode", "encode", "total"] {
        assert!(said["warm_ms"][key].as_f64().unwrap() > 0.0, "{key}");
    }
}

#[test]
fn json_says_what_was_done_and_how_long_it_took() {
    let folder = folder("json");
    let args = [
        "--steps",
        "3",
        "--num-images",
        "2",
        "--json",
        "--timestep-spacing",
        "trailing",
    ];
    let said = json(&paint(&folder, &golden("tiny-sdxl"), &args));
    assert_eq!(said["files"], serde_json::json!(["out-1.png", "out-2.png"]));
    assert_ne!(pixels(&folder.join("out-1.png")), pixels(&folder.join("out-2.png")));
    assert_eq!(said["timesteps"], serde_json::json!([999.0, 666.0, 332.0]));
    assert!((said["sigmas"][0].as_f64().unwrap() - 14.6146).abs() < 1e-3);
    assert!(said["seed"].is_u64());
    assert_eq!(said["timings_ms"]["steps"].as_array().unwrap().len(), 3);
    for key in ["load", "text", "decode", "encode", "total"] {
        assert!(said["timings_ms"][key].as_f64().unwrap() > 0.0, "{key}");
    }
}

#[test]
fn an_init_image_sets_the_size_and_strength_the_steps() {
    let folder = folder("img2img");
    let model = golden("tiny-sdxl");
    assert!(
        paint(&folder, &model, &["--steps", "1", "--width", "96", "--height", "64"])
            .status
            .success()
    );
    fs::rename(folder.join("out.png"), folder.join("in.png")).unwrap();
    let said = json(&paint(
        &folder,
        &model,
        &["--image", "in.png", "--strength", "0.5", "--steps", "4", "--json"],
    ));
    assert_eq!((&said["width"], &said["height"]), (&Value::from(96), &Value::from(64)));
    assert_eq!(said["timesteps"].as_array().unwrap().len(), 2);
    assert_eq!(said["strength"], 0.5);
}

#[test]
fn prima_json_sets_the_defaults() {
    let folder = folder("card");
    let model = common::copied_model(&folder);
    let card = r#"{"name": "mine", "num_inference_steps": 2, "guidance_scale": 0, "width": 72, "height": 48}"#;
    fs::write(model.join("prima.json"), card).unwrap();
    let said = json(&paint(&folder, &model, &["--json"]));
    assert_eq!(said["model"], "mine");
    assert_eq!(said["num_inference_steps"], 2);
    assert_eq!((&said["width"], &said["height"]), (&Value::from(72), &Value::from(48)));
}

#[test]
#[cfg(unix)]
fn packed_weights_are_kept_and_listed_and_paint_the_same() {
    let folder = folder("packed");
    let model = golden("tiny-sdxl");
    let painted = |args: &[&str]| {
        let output = paint(&folder, &model, &[&["--seed", "7", "--steps", "1"], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        pixels(&folder.join("out.png")).rgb
    };
    let plain = painted(&["--cache", "off"]);
    let listed = || {
        let output = prima(&folder, &["models", "cache", "--cache", "kept"]);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!listed().contains("unet"));
    for _ in 0..2 {
        assert_eq!(painted(&["--cache", "kept"]), plain);
        assert!(
            listed().contains("unet/diffusion_pytorch_model.safetensors"),
            "{}",
            listed()
        );
    }
    let cleared = prima(&folder, &["models", "cache", "--cache", "kept", "--clear"]);
    assert!(cleared.status.success(), "{}", stderr(&cleared));
    assert!(!listed().contains("unet"));
}

#[test]
fn what_does_not_fit_the_memory_that_is_allowed_is_refused() {
    let folder = folder("max-memory");
    let output = paint(
        &folder,
        &golden("tiny-sdxl"),
        &["--cache", "off", "--max-memory", "100M"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("100 MiB of 100 MiB are free"),
        "{}",
        stderr(&output)
    );
    let output = paint(&folder, &golden("tiny-sdxl"), &["--max-memory", "little"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("use a size such as 1500M or 2G"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn models_info_counts_what_is_there() {
    let folder = folder("info");
    let model = golden("tiny-sdxl").display().to_string();
    let said = json(&prima(&folder, &["models", "info", &model, "--json"]));
    assert_eq!(said["pipeline_class"], "StableDiffusionXLPipeline");
    assert_eq!(said["components"].as_array().unwrap().len(), 4);
    let text = prima(&folder, &["models", "info", &model]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("UNet2DConditionModel"));
    let output = prima(&folder, &["models", "info", "nowhere"]);
    common::refused(&folder, &output, 1, &["nowhere"]);
}
