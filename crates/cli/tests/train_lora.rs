//! `prima train lora`: from a folder of pictures to a picture painted with what was learnt.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{folder, prima, stderr};
use prima_picture::{Format, Picture, encode};
use std::fs;
use std::path::Path;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/tiny-sdxl");

fn write_pictures(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (i, [width, height]) in [[64, 64], [80, 60], [40, 90]].into_iter().enumerate() {
        let rgb = (0..width * height * 3).map(|at| (at * (i + 2) % 251) as u8).collect();
        let bytes = encode(&Picture { width, height, rgb }, Format::Png, 90, None).unwrap();
        fs::write(folder.join(format!("{i}.png")), bytes).unwrap();
    }
    fs::write(folder.join("0.txt"), "a zog in the rain").unwrap();
    fs::write(folder.join("notes.jpg"), "no picture").unwrap();
}

#[test]
fn a_folder_of_pictures_becomes_a_lora_that_paint_takes() {
    let folder = folder("train-lora");
    write_pictures(&folder.join("photos"));
    let train = |more: &[&str]| {
        let flags = [
            "train",
            "lora",
            "--images",
            "photos",
            "--caption",
            "a zog",
            "--model",
            MODEL,
            "--resolution",
            "64",
        ];
        let rest = [
            "--rank",
            "2",
            "--block-rank",
            "mid_block=0",
            "--prior",
            "a thing",
            "--prior-count",
            "1",
            "-o",
            "zog.safetensors",
        ];
        prima(&folder, &[&flags[..], &rest, more].concat())
    };
    let output = train(&["--steps", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("notes.jpg"), "{}", stderr(&output));
    for left in [
        "zog-run/config.json",
        "zog-run/lora/states.json",
        "zog-run/prior/pictures/00000.png",
    ] {
        assert!(folder.join(left).is_file(), "{left}");
    }
    let before = fs::read(folder.join("zog.safetensors")).unwrap();
    let again = train(&["--steps", "4"]);
    assert!(
        !again.status.success() && stderr(&again).contains("--resume"),
        "{}",
        stderr(&again)
    );
    let resumed = train(&["--steps", "4", "--resume"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(fs::read(folder.join("zog.safetensors")).unwrap() != before);
    let paint = [
        "paint",
        "a zog",
        "--model",
        MODEL,
        "--lora",
        "zog.safetensors",
        "--steps",
        "1",
        "-o",
        "zog.png",
    ];
    let painted = prima(&folder, &paint);
    assert!(painted.status.success(), "{}", stderr(&painted));
    assert!(!stderr(&painted).contains("match nothing"), "{}", stderr(&painted));
}

#[test]
fn flags_that_do_not_fit_are_refused_before_anything_is_read() {
    let folder = folder("train-lora-refused");
    for (args, words) in [
        (&["--images", "photos"][..], "-o"),
        (&["config.json", "--images", "photos"], "cannot be used with"),
        (
            &["--images", "photos", "-o", "x.safetensors", "--block-rank", "mid"],
            "BLOCK=R",
        ),
        (&["config.json", "--rank", "4"], "cannot be used with"),
        (&["--images", "photos", "-o", "x.safetensors", "--steps", "1"], "photos"),
    ] {
        let output = prima(&folder, &[&["train", "lora"], args].concat());
        assert!(
            !output.status.success() && stderr(&output).contains(words),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}
