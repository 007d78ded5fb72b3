//! Bad input: one sentence that names the thing and the fix, exit code 2 (usage) or 1 (failure),
//! no panic, no half-written file.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{copied_model, folder, golden, paint, prima, refused, stderr};
use prima_checkpoint::{TensorFile, write_safetensors};
use prima_tensor::{DType, Param, Tensor};
use std::fs;
use std::path::Path;

/// Usage errors on a sound model.
fn misuse(name: &str, args: &[&str], words: &[&str]) {
    let folder = folder(name);
    refused(&folder, &paint(&folder, &golden("tiny-sdxl"), args), 2, words);
}

#[test]
fn an_unknown_scheduler_is_refused_with_the_known_ones() {
    misuse("scheduler", &["--scheduler", "heun3"], &["heun3", "euler", "dpm++_2m"]);
}

#[test]
fn an_unknown_spacing_is_refused_with_the_known_ones() {
    misuse(
        "spacing",
        &["--timestep-spacing", "sideways"],
        &["sideways", "trailing", "sgm_uniform"],
    );
}

#[test]
fn zero_steps_are_refused() {
    misuse("steps", &["--steps", "0"], &["steps 0", "1 to"]);
    misuse("steps-many", &["--steps", "100000"], &["steps 100000", "1 to"]);
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_the_limit() {
    misuse("size-4", &["--width", "4"], &["width 4", "8 to 4096"]);
    misuse("size-0", &["--height", "0"], &["height 0", "8 to 4096"]);
    misuse("size-huge", &["--width", "1000000"], &["width 1000000", "4096"]);
    misuse("size-minus", &["--width=-64"], &["-64"]);
}

#[test]
fn impossible_counts_and_scales_are_refused() {
    misuse("images-0", &["--num-images", "0"], &["num_images 0"]);
    misuse("images-many", &["--num-images", "9999"], &["num_images 9999", "64"]);
    misuse("guidance", &["--guidance-scale", "nan"], &["guidance_scale NaN"]);
    misuse(
        "rescale",
        &["--guidance-rescale", "2"],
        &["guidance_rescale 2", "0 to 1"],
    );
    misuse(
        "original",
        &["--original-size", "big"],
        &["original-size", "big", "512x512"],
    );
    misuse(
        "crop",
        &["--crops-coords-top-left", "7"],
        &["crops-coords-top-left", "0,256"],
    );
    misuse("threads", &["--threads", "0"], &["threads 0"]);
    misuse("rng", &["--rng", "dice"], &["dice", "philox", "torch-cpu"]);
    misuse("dtype", &["--dtype", "int3"], &["int3", "bf16"]);
}

#[test]
fn an_unknown_kind_of_processor_is_refused_with_the_known_ones() {
    let folder = folder("processor");
    let mut prima = std::process::Command::new(env!("CARGO_BIN_EXE_prima"));
    prima
        .current_dir(&folder)
        .args(["paint", "a cat"])
        .env("PRIMA_CPU", "abacus");
    refused(
        &folder,
        &prima.output().unwrap(),
        2,
        &["abacus", "PRIMA_CPU", "portable, avx2"],
    );
}

#[test]
fn more_layers_than_there_are_cannot_be_skipped() {
    misuse("clip-skip", &["--clip-skip", "3"], &["clip_skip 3", "0 to 2"]);
}

#[test]
fn a_sentence_is_not_said_twice() {
    let folder = folder("twice");
    let model = copied_model(&folder);
    fs::write(
        model.join("scheduler/scheduler_config.json"),
        r#"{"_class_name": "HeunScheduler"}"#,
    )
    .unwrap();
    let output = paint(&folder, &model, &[]);
    refused(&folder, &output, 1, &["scheduler_config.json", "HeunScheduler"]);
    assert_eq!(stderr(&output).matches("unknown scheduler").count(), 1);
}

#[test]
fn a_value_that_fits_no_network_is_named_with_its_file() {
    let folder = folder("heads");
    let model = copied_model(&folder);
    let path = model.join("text_encoder/config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        config.replace(r#""num_attention_heads": 4"#, r#""num_attention_heads": 5"#),
    )
    .unwrap();
    refused(
        &folder,
        &paint(&folder, &model, &[]),
        1,
        &["text_encoder/config.json", "num_attention_heads = 5"],
    );
}

#[test]
fn timesteps_must_descend() {
    misuse("timesteps", &["--timesteps", "1,2,3"], &["timesteps", "descend"]);
}

#[test]
fn strength_without_a_picture_is_refused() {
    misuse("strength", &["--strength", "0.5"], &["--image"]);
}

#[test]
fn a_format_that_is_not_written_is_refused_with_those_that_are() {
    let folder = folder("bmp");
    let model = golden("tiny-sdxl").display().to_string();
    for name in ["out.bmp", "out"] {
        let output = prima(&folder, &["paint", "a cat", "--model", &model, "-o", name]);
        refused(&folder, &output, 2, &[name, ".png, .jpg and .webp"]);
    }
}

#[test]
fn a_model_file_that_is_not_there_is_said_to_be_missing() {
    let folder = folder("no-file");
    for (name, said) in [
        ("gone.safetensors", "there is no file gone.safetensors"),
        ("./gone", "there is no file or folder ./gone"),
    ] {
        refused(&folder, &paint(&folder, Path::new(name), &[]), 1, &[said]);
        refused(&folder, &prima(&folder, &["models", "info", name]), 1, &[said]);
    }
}

#[test]
fn a_model_that_is_not_there_is_named() {
    let folder = folder("no-model");
    refused(
        &folder,
        &paint(&folder, Path::new("nowhere/at-all"), &[]),
        1,
        &["nowhere/at-all"],
    );
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_painting() {
    let folder = folder("unwritable");
    let model = golden("tiny-sdxl").display().to_string();
    let output = prima(
        &folder,
        &["paint", "a cat", "--model", &model, "-o", "no/such/folder/a.png"],
    );
    refused(&folder, &output, 1, &["no/such/folder/a.png", "cannot write"]);
}

#[test]
fn an_init_image_that_is_none_is_named() {
    let folder = folder("init");
    let model = golden("tiny-sdxl");
    fs::write(folder.join("notes.png"), "these are words").unwrap();
    refused(
        &folder,
        &paint(&folder, &model, &["--image", "notes.png"]),
        1,
        &["notes.png is not a picture"],
    );
    refused(
        &folder,
        &paint(&folder, &model, &["--image", "gone.png"]),
        1,
        &["gone.png"],
    );
}

/// Rewrites the UNet's tensors of a copied model.
fn spoiled(name: &str, spoil: impl FnOnce(&mut Vec<(String, Tensor)>), words: &[&str]) {
    let folder = folder(name);
    let model = copied_model(&folder);
    let path = model.join("unet/diffusion_pytorch_model.safetensors");
    let file = TensorFile::open(&path).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .keys()
        .map(|key| (key.clone(), file.read(key).unwrap()))
        .collect();
    drop(file);
    spoil(&mut tensors);
    let params: Vec<_> = tensors
        .into_iter()
        .map(|(key, tensor)| (key, Param::new(tensor)))
        .collect();
    write_safetensors(&path, &params, DType::F32).unwrap();
    let words = [&["unet"], words].concat();
    refused(&folder, &paint(&folder, &model, &[]), 1, &words);
}

#[test]
fn a_missing_tensor_is_named() {
    let words = ["conv_in.bias", "no tensor", "[8]"];
    spoiled(
        "missing",
        |tensors| tensors.retain(|(key, _)| key != "conv_in.bias"),
        &words,
    );
}

#[test]
fn an_extra_tensor_is_named() {
    let extra = ("conv_in.extra".to_owned(), Tensor::zeros(&[3]));
    spoiled("extra", |tensors| tensors.push(extra), &["conv_in.extra", "never read"]);
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let reshape = |tensors: &mut Vec<(String, Tensor)>| {
        for (key, tensor) in tensors {
            if key == "conv_in.bias" {
                *tensor = Tensor::zeros(&[9]);
            }
        }
    };
    spoiled("misshapen", reshape, &["conv_in.bias", "[9]", "[8]"]);
}

#[test]
fn a_truncated_file_is_named() {
    let folder = folder("truncated");
    let model = copied_model(&folder);
    let path = model.join("vae/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    refused(&folder, &paint(&folder, &model, &[]), 1, &["vae", "truncated"]);
}

#[test]
fn a_config_that_is_no_json_is_named() {
    let folder = folder("config");
    let model = copied_model(&folder);
    fs::write(model.join("unet/config.json"), "{").unwrap();
    refused(&folder, &paint(&folder, &model, &[]), 1, &["unet", "config.json"]);
}

#[test]
fn too_little_strength_paints_one_step_and_says_so() {
    let folder = folder("strength-1");
    let model = golden("tiny-sdxl");
    assert!(paint(&folder, &model, &["--steps", "1"]).status.success());
    let args = ["--image", "out.png", "--strength", "0.1", "--steps", "4"];
    let output = paint(&folder, &model, &args);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("warning: strength 0.1") && text.contains("one step"),
        "{text}"
    );
}

#[test]
fn read_plainly_the_words_beyond_77_tokens_are_named() {
    let folder = folder("long");
    let prompt = format!("{} zebra", "cat ".repeat(80));
    let model = golden("tiny-sdxl").display().to_string();
    let output = prima(
        &folder,
        &[
            "paint",
            &prompt,
            "--prompt-syntax",
            "plain",
            "--model",
            &model,
            "--steps",
            "1",
            "-o",
            "out.png",
        ],
    );
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("warning: ") && text.contains("77") && text.contains("zebra"),
        "{text}"
    );
}
