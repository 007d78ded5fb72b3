//! `prima upscale`, `cutout` and `style`: many pictures, small networks.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{copied_model, folder, golden, paint, prima, refused, stderr};
use prima_picture::{Layer, Picture, read_parameters};
use std::fs;

fn picture(side: u32) -> image::RgbaImage {
    image::RgbaImage::from_fn(side, side, |x, y| {
        let there = if x < side / 2 { 255 } else { 0 };
        image::Rgba([(x * 10) as u8, (y * 10) as u8, 90, there])
    })
}

#[test]
fn pictures_are_enlarged_beside_themselves_and_nothing_is_replaced() {
    let folder = folder("upscale-many");
    for name in ["one.png", "two.png"] {
        picture(16).save(folder.join(name)).unwrap();
    }
    let output = prima(&folder, &["upscale", "one.png", "two.png", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["file"], "two-4x.png");
    assert_eq!(lines[1]["size"], serde_json::json!([64, 64]));
    let bytes = fs::read(folder.join("one-4x.png")).unwrap();
    let layer = Layer::decode_at_most(&bytes, "one-4x.png", 64 * 64).unwrap();
    let alpha = layer.alpha.unwrap().values;
    assert!(alpha[0] > 250 && alpha[63] < 5);
    let said = read_parameters(&bytes).unwrap().unwrap().to_text();
    assert!(said.contains("Postprocess upscaler: realesr-animevideov3"), "{said}");
    // Again, half as large, where there is one already.
    let output = prima(&folder, &["upscale", "one.png", "--scale", "2", "-o", "one-4x.png"]);
    assert!(output.status.success() && stderr(&output).contains("one-4x-2.png"));
    assert_eq!(fs::read(folder.join("one-4x.png")).unwrap(), bytes);
    let small = Picture::decode(&fs::read(folder.join("one-4x-2.png")).unwrap(), "small").unwrap();
    assert_eq!((small.width, small.height), (32, 32));
}

#[test]
fn one_bad_file_of_several_is_told_and_the_others_are_made() {
    let folder = folder("upscale-bad");
    picture(8).save(folder.join("good.png")).unwrap();
    fs::write(folder.join("bad.png"), b"no picture").unwrap();
    let model = golden("upscalers/ncnn-compact.param").display().to_string();
    let args = ["upscale", "bad.png", "good.png", "--model", &model, "-o", "out/"];
    let output = prima(&folder, &args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("bad.png is not a picture") && said.contains("1 of 2"),
        "{said}"
    );
    assert!(folder.join("out/good-2x.png").exists());
}

#[test]
fn what_is_no_upscaler_and_what_is_too_large_are_one_sentence() {
    let folder = folder("upscale-refused");
    picture(8).save(folder.join("a.png")).unwrap();
    fs::write(folder.join("x.pth"), b"PK\x03\x04").unwrap();
    let model = golden("tiny-sdxl/vae/diffusion_pytorch_model.safetensors")
        .display()
        .to_string();
    for (args, code, word) in [
        (&["upscale", "a.png", "--model", "x.pth"][..], 1, "weights_only=True"),
        (&["upscale", "a.png", "--model", &model], 1, "not an upscaler"),
        (&["upscale", "gone.png"], 1, "gone.png"),
        (&["upscale", "a.png", "--scale", "40"], 2, "40"),
    ] {
        refused(&folder, &prima(&folder, args), code, &[word]);
    }
}

#[test]
fn what_is_cut_out_is_transparent_around_or_before_another_background() {
    let folder = folder("cutout");
    fs::copy(golden("upscalers/picture.png"), folder.join("a.png")).unwrap();
    let model = golden("sam/model.safetensors").display().to_string();
    let output = prima(
        &folder,
        &["cutout", "a.png", "--model", &model, "--point", "40,30", "--json"],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&line["file"], &line["transparent"]),
        (&"a-cutout.png".into(), &true.into())
    );
    let alpha_of = |name: &str| {
        let bytes = fs::read(folder.join(name)).unwrap();
        Layer::decode_at_most(&bytes, name, 80 * 64).unwrap()
    };
    let cut = alpha_of("a-cutout.png");
    assert!(cut.alpha.is_some());
    let args = [
        "cutout",
        "a.png",
        "--model",
        &model,
        "--point",
        "40,30",
        "--background",
        "#102030",
        "-o",
        "b.png",
    ];
    assert!(prima(&folder, &args).status.success());
    assert_eq!(alpha_of("b.png").picture, cut.before([16, 32, 48]));
    let args = ["cutout", "a.png", "--model", &model, "--not-point", "1,1"];
    refused(&folder, &prima(&folder, &args), 2, &["--point"]);
}

#[test]
fn a_style_is_given_and_keeps_the_pictures_size() {
    let folder = folder("style");
    fs::copy(golden("upscalers/picture.png"), folder.join("a.png")).unwrap();
    picture(32).save(folder.join("s.png")).unwrap();
    let model = golden("adain").display().to_string();
    let args = [
        "style",
        "a.png",
        "--style",
        "s.png:2",
        "--style",
        "a.png",
        "--model",
        &model,
        "--strength",
        "0.8",
    ];
    let output = prima(&folder, &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let bytes = fs::read(folder.join("a-styled.png")).unwrap();
    let made = Picture::decode(&bytes, "styled").unwrap();
    assert_eq!((made.width, made.height), (80, 64));
    let said = read_parameters(&bytes).unwrap().unwrap().to_text();
    assert!(said.contains("s.png:2 a.png:1"), "{said}");
    let args = ["style", "a.png", "--style", "s.png", "--model", "nowhere"];
    refused(&folder, &prima(&folder, &args), 1, &["vgg_normalised"]);
}

#[test]
fn a_painted_picture_is_enlarged_and_painted_over() {
    let folder = folder("hires");
    let model = copied_model(&folder);
    let size = [
        "--width", "64", "--height", "48", "--seed", "5", "--steps", "2", "--hires", "2",
    ];
    let picture = |strength: &str| {
        let output = paint(&folder, &model, &[&size[..], &["--hires-strength", strength]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let bytes = fs::read(folder.join("out.png")).unwrap();
        let said = read_parameters(&bytes).unwrap().unwrap();
        assert_eq!(said.get("Hires upscaler"), Some("realesr-animevideov3"));
        Picture::decode(&bytes, "out.png").unwrap()
    };
    let (enlarged, painted_over) = (picture("0"), picture("0.6"));
    assert_eq!((painted_over.width, painted_over.height), (128, 96));
    assert_ne!(painted_over, enlarged);
    assert_eq!(painted_over, picture("0.6"));
}
