//! LoRAs and their relatives against diffusers, peft and LyCORIS (goldens/loras, scripts/goldens/loras.py).

mod common;

use common::tiny_models::{Layout, TinyModel};
use common::{check_picture, goldens, paint, written};
use prima_pipeline::{
    DType, Error, LoadOptions, LoraChoice, LoraOptions, ModelSource, Parts, Pipeline, Request, ScheduleOptions, merge,
};
use prima_schedulers::SchedulerConfig;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn cases() -> Vec<Value> {
    common::cases("loras")
}

fn files(case: &Value) -> Vec<(PathBuf, f32)> {
    let files = case["loras"].as_array().unwrap().iter();
    files
        .map(|file| {
            (
                goldens().join("loras").join(file[0].as_str().unwrap()),
                file[1].as_f64().unwrap() as f32,
            )
        })
        .collect()
}

fn options(dtype: DType, standing: Vec<(PathBuf, f32)>) -> LoadOptions {
    LoadOptions {
        loras: LoraOptions { folder: None, standing },
        ..LoadOptions::of(dtype)
    }
}

fn open(folder: &Path, options: &LoadOptions) -> Result<Pipeline, Error> {
    Pipeline::load(&ModelSource::open(folder)?, options)
}

/// A case's model, and what keeps it: tiny-sdxl where it names no family.
fn model(case: &Value) -> (Option<TinyModel>, PathBuf) {
    match case["family"].as_str() {
        None => (None, goldens().join("tiny-sdxl")),
        Some(family) => {
            let model = TinyModel::new(family, Layout::Folder, &[]);
            let path = model.path.clone();
            (Some(model), path)
        }
    }
}

/// The tiny model with the scheduler of `case`.
fn with_scheduler(folder: &Path, case: &Value) -> Parts {
    let mut parts = Parts::load(&ModelSource::open(folder).unwrap(), &LoadOptions::default()).unwrap();
    parts.scheduler_config = SchedulerConfig::from_json(&case["scheduler_config"].to_string()).unwrap();
    parts
}

fn check(wanted: impl Fn(&str) -> bool) {
    let cases: Vec<Value> = cases()
        .into_iter()
        .filter(|case| wanted(case["name"].as_str().unwrap()))
        .collect();
    assert!(!cases.is_empty());
    for case in cases {
        let (_kept, folder) = model(&case);
        let parts = with_scheduler(&folder, &case);
        let loras = LoraOptions {
            folder: None,
            standing: files(&case),
        };
        check_picture(&Pipeline::with_loras_of(parts, &loras).unwrap(), &case, "loras");
    }
}

#[test]
fn kohyas_loras_in_both_namings_of_blocks_are_those_of_diffusers() {
    check(|name| name.starts_with("kohya") || name == "two");
}

#[test]
fn diffusers_own_loras_old_and_new_are_those_of_diffusers() {
    check(|name| ["peft", "processors"].contains(&name));
}

#[test]
fn loras_of_stable_diffusion_1_and_2_are_those_of_diffusers() {
    check(|name| name.starts_with("sd15") || name.starts_with("sd21"));
}

#[test]
fn dora_is_that_of_peft_at_any_weight() {
    check(|name| name.starts_with("dora"));
}

#[test]
fn lycoris_kinds_are_those_of_lycoris() {
    check(|name| {
        ["loha", "lokr", "glora", "locon", "differences"]
            .iter()
            .any(|start| name.starts_with(start))
    });
}

fn small(prompt: &str) -> Request {
    Request {
        prompt: prompt.to_owned(),
        width: Some(64),
        height: Some(64),
        guidance_scale: Some(3.0),
        schedule: ScheduleOptions::steps(2),
        ..Request::default()
    }
}

#[test]
fn what_is_merged_paints_what_was_not() {
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (_kept, base) = model(&case);
        let source = ModelSource::open(base).unwrap();
        // A bias that a layer has none of cannot be written.
        let said = merge(&source, &files(&case), folder.path()).unwrap();
        assert!(said.is_empty(), "{name}: {said:?}");
        let pipeline = Pipeline::new(with_scheduler(folder.path(), &case)).unwrap();
        check_picture(&pipeline, &case, "loras");
    }
}

/// Mean difference of two pictures' bytes.
fn apart(a: &prima_pipeline::Response, b: &prima_pipeline::Response) -> f64 {
    let (a, b) = (&a.pictures[0].rgb, &b.pictures[0].rgb);
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

#[test]
fn loras_go_on_weights_of_every_kind_and_off_again_without_a_trace() {
    let folder = goldens().join("tiny-sdxl");
    let cache = tempfile::tempdir().unwrap();
    let lora = goldens().join("loras/kohya.safetensors");
    let cached = LoadOptions {
        cache: Some(prima_pipeline::PackedCache::new(cache.path())),
        ..options(DType::BF16, Vec::new())
    };
    let store = open(&folder, &cached).unwrap();
    paint(&store, &small("a cat"));
    store.store_packed().unwrap();
    for (what, given) in [
        ("f32", options(DType::F32, Vec::new())),
        ("bf16", options(DType::BF16, Vec::new())),
        ("mapped", cached),
    ] {
        let with_folder = LoadOptions {
            loras: LoraOptions {
                folder: Some(goldens().join("loras")),
                standing: Vec::new(),
            },
            ..given
        };
        let pipeline = open(&folder, &with_folder).unwrap();
        let plain = paint(&pipeline, &small("a cat")).0;
        let mut first = None;
        for round in 0..50 {
            let with = paint(&pipeline, &small("a cat <lora:kohya:0.7>")).0;
            assert!(apart(&plain, &with) > 1.0, "{what}: the LoRA has an effect");
            let first = first.get_or_insert_with(|| with.pictures.clone());
            assert_eq!(&with.pictures, first, "{what}, round {round}");
            if round % 10 == 0 {
                assert_eq!(
                    paint(&pipeline, &small("a cat")).0.pictures,
                    plain.pictures,
                    "{what}, round {round}"
                );
            }
        }
        let standing = LoadOptions {
            loras: LoraOptions {
                folder: None,
                standing: vec![(lora.clone(), 0.7)],
            },
            ..with_folder
        };
        let standing = paint(&open(&folder, &standing).unwrap(), &small("a cat")).0;
        assert_eq!(Some(standing.pictures), first, "{what}: at load and by a tag");
    }
}

#[test]
fn every_request_gets_its_own_and_the_prompts_are_remembered_apart() {
    let given = LoadOptions {
        loras: LoraOptions {
            folder: Some(goldens().join("loras")),
            standing: Vec::new(),
        },
        ..LoadOptions::default()
    };
    let pipeline = open(&goldens().join("tiny-sdxl"), &given).unwrap();
    let prompts = [
        "a cat",
        "a cat <lora:kohya>",
        "a cat <lora:kohya:0:1>",
        "a cat <lora:loha:0.5>",
    ];
    let alone: Vec<_> = prompts
        .iter()
        .map(|prompt| paint(&pipeline, &small(prompt)).0)
        .collect();
    for (i, a) in alone.iter().enumerate() {
        assert!(alone[..i].iter().all(|b| apart(a, b) > 0.5), "{}", prompts[i]);
    }
    // In another order, with what was read before still there.
    for (prompt, before) in prompts.iter().zip(&alone).rev() {
        let again = paint(&pipeline, &small(prompt)).0;
        assert_eq!(again.pictures, before.pictures, "{prompt}");
        assert!(again.timings.text_cached, "{prompt}");
    }
    std::thread::scope(|scope| {
        for (prompt, before) in prompts.iter().zip(&alone) {
            let pipeline = &pipeline;
            scope.spawn(move || assert_eq!(paint(pipeline, &small(prompt)).0.pictures, before.pictures, "{prompt}"));
        }
    });
}

#[test]
fn a_pictures_recipe_names_its_loras_as_the_field_does() {
    let given = LoadOptions {
        loras: LoraOptions {
            folder: Some(goldens().join("loras")),
            standing: vec![(PathBuf::from("lokr"), 0.5)],
        },
        ..LoadOptions::default()
    };
    let pipeline = open(&goldens().join("tiny-sdxl"), &given).unwrap();
    let request = Request {
        loras: vec![LoraChoice::new("peft", 0.25)],
        ..small("a cat <lora:KOHYA:0.7:0.5>")
    };
    let response = paint(&pipeline, &request).0;
    let parameters = response.parameters(&request, "tiny", 0);
    assert_eq!(
        parameters.prompt,
        "a cat <lora:KOHYA:0.7:0.5> <lora:lokr:0.5> <lora:peft:0.25>"
    );
    let hashes = parameters.get("Lora hashes").unwrap();
    let names: Vec<&str> = hashes
        .split(", ")
        .map(|pair| pair.split(": ").next().unwrap())
        .collect();
    assert_eq!(names, ["lokr", "peft", "kohya"]);
    assert!(
        hashes
            .split(", ")
            .all(|pair| pair.split(": ").nth(1).unwrap().len() == 12),
        "{hashes}"
    );
}

#[test]
fn unknown_names_and_strange_files_are_told() {
    let pipeline = open(&goldens().join("tiny-sdxl"), &options(DType::F32, files(&cases()[0]))).unwrap();
    let said = paint(&pipeline, &small("a cat <lora:detail:0.8> <lora:../../etc/passwd>"))
        .0
        .warnings
        .join("\n");
    assert!(
        said.contains("there is no LoRA \"detail\"") && said.contains("known are kohya"),
        "{said}"
    );
    assert!(said.contains("\"../../etc/passwd\""), "{said}");
    let asked = Request {
        loras: vec![LoraChoice::new("detail", 1.0)],
        ..small("a cat")
    };
    let refused = pipeline.check(&asked).unwrap_err();
    assert!(
        refused.is_usage() && refused.to_string().contains("known are kohya"),
        "{refused}"
    );
    let said = paint(
        &pipeline,
        &Request {
            negative_prompt: Some("bad <lora:kohya>".into()),
            ..small("a cat")
        },
    )
    .0
    .warnings;
    assert!(
        said.iter()
            .any(|warning| warning.contains("no effect in the negative prompt")),
        "{said:?}"
    );
}

#[test]
fn a_lora_of_another_family_is_one_sentence_with_file_key_and_fix() {
    let folder = tempfile::tempdir().unwrap();
    let layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let (down, up) = (format!("{layer}.lora_down.weight"), format!("{layer}.lora_up.weight"));
    let refused = |name: &str, tensors: &[(&str, &[usize])]| {
        let path = written(folder.path(), name, tensors);
        let result = open(&goldens().join("tiny-sdxl"), &options(DType::F32, vec![(path, 1.0)]));
        result.map(|_| ()).unwrap_err().to_string()
    };
    let said = refused("sd1.safetensors", &[(&down, &[4, 768]), (&up, &[640, 4])]);
    assert!(
        said.contains("sd1.safetensors: `") && said.contains(".lora_down.weight` has shape [4, 768]"),
        "{said}"
    );
    assert!(
        said.contains("use a LoRA that was made for this family") && said.contains("for Stable Diffusion 1"),
        "{said}"
    );
    let said = refused(
        "flux.safetensors",
        &[("transformer.x.attn.to_q.lora_A.weight", &[4, 64])],
    );
    assert!(
        said.contains("it is no LoRA for Stable Diffusion") && said.contains("transformer.x.attn"),
        "{said}"
    );
    let said = refused(
        "deep.safetensors",
        &[(
            "lora_unet_down_blocks_7_attentions_0_proj_in.lora_down.weight",
            &[4, 64],
        )],
    );
    assert!(
        said.contains("it changes nothing in tiny-sdxl") && said.contains("down_blocks_7"),
        "{said}"
    );
    let said = refused("half.safetensors", &[(&down, &[4, 80])]);
    assert!(said.contains("the file is incomplete"), "{said}");
}

#[test]
fn keys_that_match_nothing_are_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let (down, up) = (format!("{layer}.lora_down.weight"), format!("{layer}.lora_up.weight"));
    let path = written(
        folder.path(),
        "some.safetensors",
        &[
            (&down, &[4, 80]),
            (&up, &[16, 4]),
            ("lora_unet_elsewhere.lora_down.weight", &[4, 8]),
            ("strange", &[1]),
        ],
    );
    let pipeline = open(&goldens().join("tiny-sdxl"), &options(DType::F32, vec![(path, 1.0)])).unwrap();
    let said = paint(&pipeline, &small("a cat")).0.warnings.join(" ");
    assert!(said.contains("2 of its 4 keys match nothing in this model"), "{said}");
    assert!(said.contains("lora_unet_elsewhere.lora_down.weight, strange"), "{said}");
}

#[test]
fn loras_that_distil_a_model_bring_their_settings() {
    let folder = tempfile::tempdir().unwrap();
    let layer = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let (down, up) = (format!("{layer}.lora_down.weight"), format!("{layer}.lora_up.weight"));
    let names = [
        "sdxl_lightning_4step_lora",
        "lcm-lora-sdxl",
        "Hyper-SDXL-2steps-lora",
        "style",
    ];
    for name in names {
        written(
            folder.path(),
            &format!("{name}.safetensors"),
            &[(&down, &[4, 80]), (&up, &[16, 4])],
        );
    }
    let given = LoadOptions {
        loras: LoraOptions {
            folder: Some(folder.path().to_path_buf()),
            standing: Vec::new(),
        },
        ..LoadOptions::default()
    };
    let pipeline = open(&goldens().join("tiny-sdxl"), &given).unwrap();
    let settings = |prompt: &str| {
        let request = Request {
            prompt: prompt.to_owned(),
            width: Some(64),
            height: Some(64),
            ..Request::default()
        };
        let response = paint(&pipeline, &request).0;
        let said = response.warnings.join(" ");
        (
            response.num_inference_steps,
            response.guidance_scale,
            response.scheduler.class_name(),
            said,
        )
    };
    let plain = settings("a cat");
    let (steps, guidance, scheduler, said) = settings("a cat <lora:sdxl_lightning_4step_lora>");
    assert_eq!((steps, guidance, scheduler), (4, 0.0, "EulerDiscreteScheduler"));
    assert!(said.contains("SDXL-Lightning"), "{said}");
    let (steps, guidance, scheduler, _) = settings("a cat <lora:lcm-lora-sdxl>");
    assert_eq!((steps, guidance, scheduler), (4, 1.0, "LCMScheduler"));
    let (steps, guidance, scheduler, _) = settings("a cat <lora:Hyper-SDXL-2steps-lora>");
    assert_eq!((steps, guidance, scheduler), (2, 0.0, "DDIMScheduler"));
    for other in ["a cat <lora:style>", "a cat <lora:lcm-lora-sdxl:0.1>"] {
        let (steps, guidance, scheduler, _) = settings(other);
        assert_eq!((steps, guidance, scheduler), (plain.0, plain.1, plain.2), "{other}");
    }
}

#[test]
fn a_lora_that_changes_nothing_is_found_out_before_a_merged_folder_is_written() {
    let out = tempfile::tempdir().unwrap();
    let source = ModelSource::open(goldens().join("tiny-sdxl")).unwrap();
    let layer = "lora_unet_down_blocks_7_attentions_0_proj_in";
    let (down, up) = (format!("{layer}.lora_down.weight"), format!("{layer}.lora_up.weight"));
    let tensors: [(&str, &[usize]); 2] = [(&down, &[4, 64]), (&up, &[64, 4])];
    let stranger = written(out.path(), "stranger.safetensors", &tensors);
    let folder = out.path().join("merged");
    let said = merge(&source, &[(stranger, 1.0)], &folder).unwrap_err().to_string();
    assert!(said.contains("stranger") && said.contains("changes nothing"), "{said}");
    assert!(!folder.exists());
}

#[test]
fn a_files_hash_is_read_when_a_recipe_asks_for_it_and_once() {
    let lora = goldens().join("loras/kohya.safetensors");
    let pipeline = open(&goldens().join("tiny-sdxl"), &options(DType::F32, vec![(lora, 1.0)])).unwrap();
    let request = small("a cat");
    let response = paint(&pipeline, &request).0;
    assert!(
        !response.loras[0].hash.is_known(),
        "a picture alone reads the whole file"
    );
    assert!(response.parameters(&request, "m", 0).get("Lora hashes").is_some());
    assert!(paint(&pipeline, &request).0.loras[0].hash.is_known());
}
