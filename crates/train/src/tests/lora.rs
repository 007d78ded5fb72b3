//! LoRAs: what is written, what it does to a model, and what a person's pictures may be.

use super::Scratch;
use super::common::saved;
use crate::config::TrainConfig;
use crate::stages::named;
use crate::trainer::{Budget, RunOptions, Summary};
use crate::{LoraKeys, export_lora};
use prima_checkpoint::TensorFile;
use prima_picture::{Format, Picture, encode};
use prima_pipeline::{LoadOptions, LoraOptions, ModelSource, Pipeline, Request, ScheduleOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn model() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/tiny-sdxl"))
}

/// Four pictures of two shapes.
fn write_pictures(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for (i, [width, height]) in [[64, 64], [90, 64], [64, 64], [40, 80]].into_iter().enumerate() {
        let value = |at: usize| ((at * (i + 3)) % 251) as u8;
        let rgb = (0..width * height * 3).map(value).collect();
        let bytes = encode(&Picture { width, height, rgb }, Format::Png, 90, None).unwrap();
        std::fs::write(folder.join(format!("{i}.png")), bytes).unwrap();
    }
}

fn config(folder: &Scratch, run: &str, lora: Value) -> TrainConfig {
    let pictures = folder.join("pictures");
    write_pictures(&pictures);
    let mut section = json!({ "batch_size": 2, "size": { "rank": 2, "alpha": 3.0, "layers": "all" },
        "loop": { "sample_every": 0, "save_every_s": 1000, "optimizer": { "learning_rate": 1e-2, "lr_warmup_steps": 1 } } });
    section
        .as_object_mut()
        .unwrap()
        .extend(lora.as_object().unwrap().clone());
    folder.config(json!({
        "data_dir": "", "model": model(), "run_dir": folder.join(run), "seed": 3, "lora": section,
        "pictures": { "path": pictures, "caption": "a zog", "resolution_px": 64 },
    }))
}

fn train(config: &TrainConfig, mut options: RunOptions) -> Summary {
    named("lora").unwrap().run(config, &mut options).unwrap()
}

fn steps(n: u64) -> RunOptions {
    RunOptions::alone(Budget::steps(n), false)
}

/// What tiny-sdxl paints, with LoRAs.
fn painted(loras: &[&Path]) -> Vec<u8> {
    let options = LoadOptions {
        loras: LoraOptions {
            folder: None,
            standing: loras.iter().map(|path| (path.to_path_buf(), 1.0)).collect(),
        },
        ..LoadOptions::default()
    };
    let pipeline = Pipeline::load(&ModelSource::open(model()).unwrap(), &options).unwrap();
    let request = Request {
        prompt: "a zog".into(),
        schedule: ScheduleOptions::steps(2),
        ..Request::default()
    };
    let response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(
        response
            .warnings
            .iter()
            .all(|warning| !warning.contains("match nothing")),
        "{:?}",
        response.warnings
    );
    response.pictures.into_iter().next().unwrap().rgb
}

#[test]
fn a_lora_is_written_under_the_keys_of_kohya_and_of_peft_and_paints_alike() {
    let folder = Scratch::new("lora-keys");
    let config = config(
        &folder,
        "run",
        json!({ "trains_text_encoders": true, "prior": { "prompt": "a thing", "count": 2 } }),
    );
    assert_eq!(train(&config, steps(4)).steps, 4);
    assert!(folder.join("run/prior/pictures/00001.png").exists());
    let files = [(LoraKeys::Kohya, "kohya"), (LoraKeys::Peft, "peft")].map(|(keys, name)| {
        let path = folder.join(format!("{name}.safetensors"));
        export_lora(&config, &path, keys).unwrap();
        path
    });
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/training/lora-keys.json");
    let fixture: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let by_x = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    for (path, name) in files.iter().zip(["kohya", "peft"]) {
        let file = TensorFile::open(path).unwrap();
        let found: BTreeMap<String, String> = file
            .tensors()
            .iter()
            .map(|(key, entry)| (key.clone(), by_x(&entry.shape)))
            .collect();
        assert_eq!(found, fixture[name], "{name}");
    }
    let [plain, kohya, peft] = [vec![], vec![&*files[0]], vec![&*files[1]]].map(|loras| painted(&loras));
    let apart = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(apart(&kohya, &peft) <= 1, "{}", apart(&kohya, &peft));
    assert!(apart(&plain, &kohya) > 3, "{}", apart(&plain, &kohya));
}

#[test]
fn a_lora_that_was_stopped_and_resumed_has_the_bits_of_one_that_was_not() {
    let folder = Scratch::new("lora-resumed");
    let whole = config(&folder, "whole", json!({}));
    train(&whole, steps(6));
    let halves = config(
        &folder,
        "halves",
        json!({ "loop": { "sample_every": 0, "save_every_s": 0,
        "optimizer": { "learning_rate": 1e-2, "lr_warmup_steps": 1, "lr_scheduler": "constant" } } }),
    );
    let same = config(
        &folder,
        "same",
        json!({ "loop": { "sample_every": 0, "save_every_s": 1000,
        "optimizer": { "learning_rate": 1e-2, "lr_warmup_steps": 1, "lr_scheduler": "constant" } } }),
    );
    train(&same, steps(6));
    train(&halves, steps(2));
    train(&halves, RunOptions::alone(Budget::steps(6), true));
    assert_eq!(saved(&folder.join("halves/lora")), saved(&folder.join("same/lora")));
    assert!(saved(&folder.join("whole/lora")) != saved(&folder.join("same/lora")));
}

#[test]
fn recomputation_and_a_base_in_bf16_change_the_memory_and_little_else() {
    let folder = Scratch::new("lora-memory");
    let of = |run: &str, section: Value| {
        let config = config(&folder, run, section);
        let loss = train(&config, steps(3)).loss;
        (loss, saved(&folder.join(run).join("lora")))
    };
    let training = |recompute: bool| json!({ "loop": { "sample_every": 0, "recompute": recompute, "optimizer": { "learning_rate": 1e-3, "lr_warmup_steps": 1 } } });
    let (plain, again) = (of("plain", training(false)), of("again", training(true)));
    assert_eq!(plain, again);
    let mut narrow = training(false);
    narrow["bf16_base"] = json!(true);
    let (loss, _) = of("narrow", narrow);
    assert!((loss / plain.0 - 1.0).abs() < 0.02, "{loss}, {}", plain.0);
}

#[test]
fn pictures_that_changed_and_files_that_are_none_are_told() {
    let folder = Scratch::new("lora-pictures");
    let config = config(&folder, "run", json!({}));
    std::fs::write(folder.join("pictures/4.png"), b"no picture").unwrap();
    train(&config, steps(1));
    std::fs::remove_file(folder.join("pictures/2.png")).unwrap();
    let mut options = RunOptions::alone(Budget::steps(2), true);
    let error = named("lora")
        .unwrap()
        .run(&config, &mut options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("other pictures") && error.contains("latents"), "{error}");
    std::fs::remove_dir_all(folder.join("pictures")).unwrap();
    let error = named("lora")
        .unwrap()
        .run(&config, &mut options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("pictures"), "{error}");
}
