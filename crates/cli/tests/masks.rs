//! `prima paint` with masks, margins, ControlNets and refiners.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{folder, golden, paint, refused, stderr};
use prima_picture::{Format, Gray, Picture, QUALITY, encode, read_parameters};
use std::fs;
use std::path::Path;

fn write(path: &Path, picture: &Picture) {
    fs::write(path, encode(picture, Format::Png, QUALITY, None).unwrap()).unwrap();
}

fn pixels(path: &Path) -> Picture {
    Picture::decode(&fs::read(path).unwrap(), "test").unwrap()
}

/// A folder with a picture of 64x48 and a mask of its right half.
fn place(name: &str) -> (std::path::PathBuf, Picture) {
    let folder = folder(name);
    let rgb = (0..64 * 48 * 3).map(|i| (i * 31 % 256) as u8).collect();
    let picture = Picture {
        width: 64,
        height: 48,
        rgb,
    };
    write(&folder.join("in.png"), &picture);
    let mut mask = Gray::flat(64, 48, 0);
    mask.values.chunks_mut(64).for_each(|row| row[32..].fill(255));
    write(&folder.join("mask.png"), &mask.to_picture());
    (folder, picture)
}

#[test]
fn what_is_not_masked_stays_to_the_last_bit_and_the_file_says_how_it_was_painted() {
    let (folder, picture) = place("masked");
    let args = [
        "--init-image",
        "in.png",
        "--mask",
        "mask.png",
        "--steps",
        "2",
        "--strength",
        "0.9",
    ];
    let output = paint(&folder, &golden("tiny-sdxl"), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let painted = pixels(&folder.join("out.png"));
    let rows = painted.rgb.chunks(3 * 64).zip(picture.rgb.chunks(3 * 64));
    for (row, own) in rows {
        assert_eq!(row[..3 * 32], own[..3 * 32]);
    }
    assert_ne!(painted, picture);
    let parameters = read_parameters(&fs::read(folder.join("out.png")).unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(parameters.get("Mask blur"), Some("0"));

    // Cut out and painted at the model's size, the picture keeps its own.
    let args = [
        &args[..],
        &[
            "--mask-padding",
            "4",
            "--mask-invert",
            "--width",
            "64",
            "--height",
            "64",
        ],
    ]
    .concat();
    let output = paint(&folder, &golden("tiny-sdxl"), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let cut = pixels(&folder.join("out.png"));
    assert_eq!((cut.width, cut.height), (64, 48));
    assert_eq!(cut.rgb[3 * 40..3 * 64], picture.rgb[3 * 40..3 * 64]);
}

#[test]
fn a_margin_is_painted_around_a_picture() {
    let (folder, picture) = place("outpainted");
    let args = ["--image", "in.png", "--outpaint", "0,0,32,16", "--steps", "1"];
    let output = paint(&folder, &golden("tiny-sdxl"), &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let painted = pixels(&folder.join("out.png"));
    assert_eq!((painted.width, painted.height), (96, 64));
    assert_eq!(painted.rgb[..3 * 64], picture.rgb[..3 * 64]);
}

#[test]
fn a_model_takes_over_as_a_refiner() {
    let (folder, _) = place("refined");
    let model = golden("tiny-sdxl");
    let refiner = model.display().to_string();
    let args = ["--refiner", &refiner, "--refiner-switch-at", "0.5", "--steps", "4"];
    let output = paint(&folder, &model, &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let parameters = read_parameters(&fs::read(folder.join("out.png")).unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(parameters.get("Refiner"), Some("tiny-sdxl"));
    assert_eq!(parameters.get("Refiner switch at"), Some("0.5"));
}

#[test]
fn wrong_masks_and_controls_are_a_sentence() {
    let (folder, _) = place("wrong-masks");
    let model = golden("tiny-sdxl");
    write(&folder.join("small.png"), &Gray::flat(8, 8, 255).to_picture());
    write(&folder.join("black.png"), &Gray::flat(64, 48, 0).to_picture());
    let wrong = |args: &[&str], code: i32, words: &[&str]| refused(&folder, &paint(&folder, &model, args), code, words);
    let image = ["--image", "in.png"];
    let masked = |name: &'static str| [&image[..], &["--mask", name]].concat();
    wrong(&masked("small.png"), 2, &["mask of 8x8", "64x48"]);
    wrong(&masked("black.png"), 2, &["black everywhere"]);
    wrong(&masked("gone.png"), 1, &["gone.png"]);
    wrong(&["--mask", "mask.png"], 2, &["--image"]);
    wrong(
        &[&masked("mask.png")[..], &["--mask-fill", "rain"]].concat(),
        2,
        &["rain", "latent-noise"],
    );
    wrong(
        &[&masked("mask.png")[..], &["--mask-blur", "-1"]].concat(),
        2,
        &["mask_blur -1"],
    );
    wrong(&[&image[..], &["--outpaint", "8"]].concat(), 2, &["four margins"]);
    wrong(&["--controlnet", "canny.safetensors"], 2, &["--control-image"]);
    wrong(
        &["--controlnet", "canny", "--control-image", "in.png"],
        2,
        &["controlnet \"canny\"", "--controlnet-dir"],
    );
    fs::write(folder.join("lines.safetensors"), "no weights").unwrap();
    wrong(
        &["--controlnet", "lines.safetensors", "--control-image", "in.png"],
        1,
        &["lines.safetensors"],
    );
    wrong(&["--refiner", "gone.safetensors"], 1, &["gone.safetensors"]);
    wrong(&["--refiner-switch-at", "0.5"], 2, &["--refiner"]);
}
