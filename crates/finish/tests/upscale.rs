//! Upscalers against PyTorch and ncnn (`scripts/goldens/upscalers.py`), and what tiles and transparency do.

use prima_checkpoint::TensorFile;
use prima_finish::{Error, Progress, Upscaler};
use prima_picture::{Gray, Layer, Picture};
use prima_tensor::DType;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../goldens/upscalers")
        .join(name)
}

fn picture(name: &str) -> Picture {
    Picture::decode(&std::fs::read(golden(name)).unwrap(), name).unwrap()
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn enlarged(upscaler: &Upscaler, picture: &Picture, times: usize) -> Picture {
    let (width, height) = (picture.width * times, picture.height * times);
    let layer = upscaler
        .enlarge(&picture.clone().into(), width, height, &mut go_on)
        .unwrap();
    assert_eq!(layer.alpha, None);
    layer.picture
}

/// Mean and largest difference in levels.
fn apart(a: &Picture, b: &Picture) -> (f64, u8) {
    assert_eq!((a.width, a.height), (b.width, b.height));
    let apart: Vec<u8> = a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = apart.iter().map(|d| f64::from(*d)).sum();
    (sum / apart.len() as f64, apart.into_iter().max().unwrap())
}

/// A picture of bytes that is `key` of a golden in 0..1, `[1, 3, H, W]`.
fn of_golden(file: &TensorFile, key: &str) -> Picture {
    let tensor = prima_tensor::nchw_to_nhwc(&file.read(key).unwrap());
    Picture {
        width: tensor.dim(2),
        height: tensor.dim(1),
        rgb: tensor
            .data()
            .iter()
            .map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8)
            .collect(),
    }
}

#[test]
fn the_embedded_network_makes_what_ncnn_makes() {
    let upscaler = Upscaler::embedded(DType::F32).unwrap();
    assert_eq!((upscaler.name(), upscaler.scale()), ("realesr-animevideov3", 4));
    let made = enlarged(&upscaler, &picture("picture.png"), 4);
    let (mean, most) = apart(&made, &picture("picture-ncnn.png"));
    assert!(mean < 0.01 && most <= 1, "{mean} {most}");
}

#[test]
fn in_bf16_it_is_within_a_level_in_the_mean() {
    let upscaler = Upscaler::embedded(DType::BF16).unwrap();
    let made = enlarged(&upscaler, &picture("picture.png"), 4);
    let (mean, _) = apart(&made, &picture("picture-ncnn.png"));
    assert!(mean < 1.0, "{mean}");
}

#[test]
fn a_network_in_ncnns_files_is_read_by_either_name() {
    let golden_file = TensorFile::open(&golden("ncnn.safetensors")).unwrap();
    for ending in ["param", "bin"] {
        let upscaler = Upscaler::open(&golden(&format!("ncnn-compact.{ending}")), DType::F32).unwrap();
        let made = enlarged(&upscaler, &of_golden(&golden_file, "picture"), 2);
        assert!(apart(&made, &of_golden(&golden_file, "ncnn-compact")).1 <= 1);
    }
}

#[test]
fn files_are_told_by_their_keys_under_every_spelling() {
    let outputs = TensorFile::open(&golden("outputs.safetensors")).unwrap();
    for (name, scale) in [("compact", 4), ("rrdb-x4", 4), ("rrdb-x2", 2), ("rrdb-x1", 1)] {
        let upscaler = Upscaler::open(&golden(&format!("{name}.safetensors")), DType::F32).unwrap();
        assert_eq!((upscaler.name(), upscaler.scale()), (name, scale));
        let from = of_golden(&outputs, if name == "rrdb-x1" { "picture-x1" } else { "picture" });
        let made = enlarged(&upscaler, &from, scale);
        // The golden was not rounded to bytes on the way in.
        let (mean, most) = apart(&made, &of_golden(&outputs, name));
        assert!(mean < 1.5 && most < 12, "{name}: {mean} {most}");
    }
}

#[test]
fn tiles_of_the_compact_network_leave_no_seam() {
    let upscaler = Upscaler::open(&golden("ncnn-compact.param"), DType::F32).unwrap();
    // Wide enough for three tiles; each row is what a low picture of it is on its own, but for the rows near its borders.
    let wide = picture("picture.png").covering(1200, 24);
    let made = enlarged(&upscaler, &wide, 2);
    let part = |from: usize, len: usize| Picture {
        width: len,
        height: 24,
        rgb: (0..24)
            .flat_map(|y| wide.rgb[(y * 1200 + from) * 3..][..len * 3].to_vec())
            .collect(),
    };
    // Across both borders, at 400 and at 800, in one piece.
    for from in [300, 700] {
        let whole = enlarged(&upscaler, &part(from, 200), 2);
        for y in 0..48 {
            let inside = 20 * 3..380 * 3;
            let tiled = &made.rgb[(y * 2400 + from * 2) * 3..][inside.clone()];
            let whole = &whole.rgb[y * 400 * 3..][inside];
            assert_eq!(tiled, whole, "row {y} from {from}");
        }
    }
}

#[test]
fn a_size_between_is_reached_and_a_smaller_scale_is_the_mean_of_the_networks_pixels() {
    let upscaler = Upscaler::open(&golden("compact.safetensors"), DType::F32).unwrap();
    let from = picture("picture.png").resized(20, 16);
    let [four, two] = [4, 2].map(|times| enlarged(&upscaler, &from, times));
    for (x, y, c) in [(0, 0, 0), (7, 5, 1), (39, 31, 2)] {
        let at = |dx: usize, dy: usize| i32::from(four.rgb[((2 * y + dy) * 80 + 2 * x + dx) * 3 + c]);
        let mean = (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1) + 2) / 4;
        assert!((mean - i32::from(two.rgb[(y * 40 + x) * 3 + c])).abs() <= 1);
    }
    let between = upscaler
        .enlarge(&from.clone().into(), 50, 37, &mut go_on)
        .unwrap()
        .picture;
    assert_eq!(
        (between.width, between.height, between.rgb.len()),
        (50, 37, 50 * 37 * 3)
    );
    assert_eq!(enlarged(&upscaler, &from, 5).width, 100);
}

#[test]
fn transparency_is_enlarged_with_the_picture() {
    let upscaler = Upscaler::embedded(DType::F32).unwrap();
    let picture = picture("picture.png").resized(16, 16);
    // A disc.
    let alpha = (0..256).map(|i| {
        if (i / 16 - 8i32).pow(2) + (i % 16 - 8).pow(2) < 30 {
            255
        } else {
            0
        }
    });
    let layer = Layer {
        picture: picture.clone(),
        alpha: Some(Gray {
            width: 16,
            height: 16,
            values: alpha.collect(),
        }),
    };
    let mut last = Progress { done: 0, total: 0 };
    let made = upscaler.enlarge(&layer, 64, 64, &mut |progress| {
        last = progress;
        ControlFlow::Continue(())
    });
    let made = made.unwrap();
    let alpha = made.alpha.unwrap().values;
    assert_eq!((alpha.len(), last.done), (64 * 64, last.total));
    assert!(alpha[32 * 64 + 32] > 250 && alpha[0] < 5);
    assert_eq!(made.picture, enlarged(&upscaler, &picture, 4));
}

#[test]
fn two_files_are_mixed_by_their_share() {
    let path = golden("compact.safetensors");
    let from = picture("picture.png").resized(12, 12);
    let alone = enlarged(&Upscaler::open(&path, DType::F32).unwrap(), &from, 4);
    let mixed = Upscaler::mixed(&path, &path, 0.25).unwrap();
    assert!(apart(&enlarged(&mixed, &from, 4), &alone).1 <= 1);
    let refused = Upscaler::mixed(&golden("rrdb-x4.safetensors"), &path, 0.5)
        .err()
        .unwrap();
    assert!(refused.to_string().contains("SRVGGNetCompact"), "{refused}");
}

#[test]
fn the_caller_can_end_it_and_sides_are_bounded() {
    let upscaler = Upscaler::embedded(DType::F32).unwrap();
    let layer = Layer::from(picture("picture.png"));
    let ended = upscaler.enlarge(&layer, 320, 256, &mut |_| ControlFlow::Break(()));
    assert!(matches!(ended, Err(Error::Cancelled)));
    let large = upscaler.enlarge(&layer, 20_000, 256, &mut go_on).unwrap_err();
    assert!(large.is_usage() && large.to_string().contains("16384"), "{large}");
}

#[test]
fn files_that_are_no_upscalers_are_refused_by_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let pickle = folder.path().join("RealESRGAN_x4plus.pth");
    std::fs::write(&pickle, b"PK\x03\x04rest").unwrap();
    let error = Upscaler::open(&pickle, DType::F32).err().unwrap().to_string();
    assert!(
        error.contains("pickle") && error.contains("weights_only=True"),
        "{error}"
    );
    let error = Upscaler::open(&golden("outputs.safetensors"), DType::F32)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("is not an upscaler") && error.contains("compact"),
        "{error}"
    );
    let param = folder.path().join("x.param");
    std::fs::write(&param, "7767517\n1 1\nLSTM l 1 1 a b\n").unwrap();
    std::fs::write(param.with_extension("bin"), [0; 4]).unwrap();
    let error = Upscaler::open(&param, DType::F32).err().unwrap().to_string();
    assert!(error.contains("LSTM"), "{error}");
    let cut = folder.path().join("cut.param");
    std::fs::copy(golden("ncnn-compact.param"), &cut).unwrap();
    let bin = std::fs::read(golden("ncnn-compact.bin")).unwrap();
    std::fs::write(cut.with_extension("bin"), &bin[..bin.len() - 4]).unwrap();
    let error = Upscaler::open(&cut, DType::F32).err().unwrap().to_string();
    assert!(error.contains("ends before"), "{error}");
}
