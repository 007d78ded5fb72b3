//! Runs that start from a model instead of at random.

use super::Scratch;
use super::common::{configs, saved, text_config};
use crate::config::TrainConfig;
use crate::stages::named;
use crate::trained::Painter;
use crate::trainer::{Budget, RunOptions};
use crate::{export, latents};
use prima_checkpoint::export::{weights_name, write_json};
use prima_checkpoint::{ModelSource, RandomInit, TensorFile, export as write_component};
use prima_models::{ClipTextConfig, ClipTextModel, Unet2dCondition, Unet2dConditionConfig, Vae};
use prima_pipeline::{LoadOptions, Pipeline, Request, ScheduleOptions};
use prima_tensor::DType;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;

/// A tiny Stable Diffusion 1.5: one text encoder, whose last hidden state the UNet reads, and epsilon prediction.
fn write_stable_diffusion(folder: &Path, data: &Path) {
    let networks = configs();
    let mut unet = networks["unet"].clone();
    unet["cross_attention_dim"] = json!(8);
    for field in [
        "addition_embed_type",
        "addition_time_embed_dim",
        "projection_class_embeddings_input_dim",
    ] {
        unet[field] = Value::Null;
    }
    let write = |component: &str, json: &Value, make: &dyn Fn(&str, &mut RandomInit)| {
        let mut source = RandomInit::new(9);
        make(&json.to_string(), &mut source);
        let (weights, params) = (weights_name(component), source.into_params());
        write_component(&folder.join(component), weights, json, &params, DType::F32).unwrap();
    };
    write("unet", &unet, &|json, source| {
        let config = Unet2dConditionConfig::from_json(json, "unet").unwrap();
        Unet2dCondition::new(config, source).unwrap();
        // The last layer starts at zero: give it something to say.
        let (_, out) = source
            .params()
            .iter()
            .find(|(key, _)| key == "conv_out.weight")
            .unwrap();
        out.update(|w| {
            w.iter_mut()
                .enumerate()
                .for_each(|(i, w)| *w = 0.02 * ((i % 5) as f32 - 2.0));
        });
    });
    write("text_encoder", &text_config("CLIPTextModel"), &|json, source| {
        ClipTextModel::new(ClipTextConfig::from_json(json, "text_encoder").unwrap(), source).unwrap();
    });
    let mut vae = networks["vae"].clone();
    vae["scaling_factor"] = json!(0.5);
    write("vae", &vae, &|json, source| {
        drop(Vae::new(json, "vae", source).unwrap());
    });
    let tokenizer = folder.join("tokenizer");
    std::fs::create_dir_all(&tokenizer).unwrap();
    for file in std::fs::read_dir(data.join("tokenizer")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), tokenizer.join(file.file_name())).unwrap();
    }
    std::fs::create_dir_all(folder.join("scheduler")).unwrap();
    let scheduler = json!({ "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "prediction_type": "epsilon", "steps_offset": 1,
        "clip_sample": false, "set_alpha_to_one": false, "skip_prk_steps": true });
    write_json(&folder.join("scheduler/scheduler_config.json"), &scheduler).unwrap();
    let index = json!({ "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"] });
    write_json(&folder.join("model_index.json"), &index).unwrap();
}

fn train(config: &TrainConfig, stage: &str, steps: u64) {
    let mut options = RunOptions::alone(Budget::steps(steps), false);
    let summary = named(stage).unwrap().run(config, &mut options).unwrap();
    assert_eq!(summary.steps, steps);
    assert!(summary.loss.is_finite());
}

/// The configuration of a run from the model at `model`.
fn from_model(folder: &Scratch, model: &Path, run: &str, export_stage: &str) -> TrainConfig {
    let fast = json!({ "sample_every": 1_000_000, "optimizer": { "learning_rate": 1e-3, "lr_warmup_steps": 1 } });
    folder.config(json!({
        "model": model, "run_dir": folder.join(run), "seed": 3,
        "latents": { "count": 8, "batch_size": 8 },
        "teacher": { "loop": fast, "batch_size": 4, "caption_dropout": 0.5, "trains_text_encoders": false, "sample_steps": 2 },
        "lcm": { "loop": fast, "batch_size": 4, "guidance_scale": 1.5 },
        "decoder": { "loop": fast, "batch_size": 1, "style_share": 0.0 },
        "sample_prompts": ["a disc", "a red disc"],
        "export": { "folder": folder.join(format!("{run}-exported")), "name": run, "stage": export_stage },
    }))
}

/// What the networks of a folder paint.
fn paint(folder: &Path) -> Vec<u8> {
    let model = ModelSource::open(folder).unwrap();
    let pipeline = Pipeline::load(&model, &LoadOptions::default()).unwrap();
    let request = Request {
        prompt: "a disc".into(),
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    };
    let mut response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).unwrap();
    response.pictures.remove(0).rgb
}

#[test]
fn a_stable_diffusion_model_is_fine_tuned_distilled_and_exported_in_its_own_layout() {
    let folder = Scratch::with_data("stable-diffusion");
    let model = folder.join("model");
    write_stable_diffusion(&model, &folder.join("data"));
    // Distilled as it is: no stage but latents came before.
    let direct = from_model(&folder, &model, "direct", "lcm");
    latents(&direct, Budget::default()).unwrap();
    train(&direct, "lcm", 2);
    assert!(folder.join("direct/lcm/samples-000002.png").exists());

    // Fine-tuned first: what is distilled then is the teacher that this run has.
    let tuned = from_model(&folder, &model, "tuned", "lcm");
    latents(&tuned, Budget::default()).unwrap();
    train(&tuned, "teacher", 3);
    train(&tuned, "decoder", 1);
    let teacher = saved(&folder.join("tuned/teacher"));
    assert!(
        !teacher.keys().any(|key| key.contains("text_encoder")),
        "the text encoders stay"
    );
    let key = "unet.conv_out.weight";
    let weights = |painter: Painter| {
        let params = painter.unet_params();
        params
            .iter()
            .find(|(k, _)| k == key)
            .unwrap()
            .1
            .tensor()
            .data()
            .to_vec()
    };
    assert_eq!(
        weights(Painter::teacher(&tuned).unwrap()),
        teacher[&format!("ema.{key}")]
    );
    assert_ne!(weights(Painter::fresh(&tuned).unwrap()), teacher[&format!("ema.{key}")]);
    train(&tuned, "lcm", 2);

    let exported = export(&tuned).unwrap();
    let index = ModelSource::open(&exported.folder)
        .unwrap()
        .json("", "model_index.json")
        .unwrap();
    assert_eq!(
        (&index["_class_name"], &index["scheduler"][1]),
        (&json!("StableDiffusionPipeline"), &json!("LCMScheduler"))
    );
    let card = std::fs::read_to_string(exported.folder.join("MODEL_CARD.md")).unwrap();
    assert!(
        card.contains("from the weights of") && !card.contains("no weights of any other model"),
        "{card}"
    );
    assert_ne!(paint(&exported.folder), paint(&model));
}

#[test]
fn a_student_that_is_told_its_guidance_ships_with_that_input() {
    let folder = Scratch::with_data("told");
    let model = folder.join("model");
    write_stable_diffusion(&model, &folder.join("data"));
    let mut config = from_model(&folder, &model, "told", "lcm");
    let fast = json!({ "sample_every": 2, "optimizer": { "learning_rate": 1e-2, "lr_warmup_steps": 1 } });
    let lcm = json!({ "loop": fast, "batch_size": 4, "guidance_scales": [2.0, 8.0], "guidance_embedding_dim": 16 });
    config.sections.insert("lcm".to_owned(), lcm);
    latents(&config, Budget::default()).unwrap();
    train(&config, "lcm", 3);
    let exported = export(&config).unwrap().folder;
    let source = ModelSource::open(&exported).unwrap();
    assert_eq!(source.json("unet", "config.json").unwrap()["time_cond_proj_dim"], 16);
    let card = source.json("", "prima.json").unwrap();
    assert_eq!(
        (&card["guidance_scale"], &card["guidance_free"]),
        (&json!(5.0), &json!(false))
    );
    let pipeline = Pipeline::load(&source, &LoadOptions::default()).unwrap();
    let at = |scale| {
        let request = Request {
            prompt: "a disc".into(),
            guidance_scale: Some(scale),
            schedule: ScheduleOptions::steps(1),
            ..Request::default()
        };
        let mut response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).unwrap();
        response.pictures.remove(0).rgb
    };
    assert_ne!(at(2.0), at(8.0), "the input says something");

    config.sections.insert(
        "lcm-lora".to_owned(),
        json!({ "lcm": { "guidance_scales": [2.0, 8.0] } }),
    );
    let mut options = RunOptions::alone(Budget::steps(1), false);
    let error = named("lcm-lora")
        .unwrap()
        .run(&config, &mut options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("guidance_scale"), "{error}");
}

#[test]
fn a_model_that_is_exported_untouched_is_the_model() {
    let folder = Scratch::with_data("untouched");
    let model = folder.join("model");
    write_stable_diffusion(&model, &folder.join("data"));
    let config = from_model(&folder, &model, "untouched", "teacher");
    let exported = export(&config).unwrap();
    for component in ["unet", "text_encoder", "vae"] {
        let file = |folder: &Path| TensorFile::open(&folder.join(component).join(weights_name(component))).unwrap();
        let (got, want) = (file(&exported.folder), file(&model));
        assert!(got.tensors().keys().eq(want.tensors().keys()), "{component}");
        for key in want.tensors().keys() {
            let (got, want) = (got.read(key).unwrap(), want.read(key).unwrap());
            // Written in f16.
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * b.abs() + 1e-6;
            assert!(got.data().iter().zip(want.data()).all(close), "{component}: {key}");
        }
    }
}

#[test]
fn an_exported_run_is_a_model_to_start_from() {
    let folder = Scratch::with_data("again");
    let first = folder.config(json!({
        "networks": configs(), "latents": { "count": 8, "batch_size": 8 }, "sample_prompts": ["a disc"],
        "autoencoder": { "batch_size": 2, "crop_px": 32 },
        "teacher": { "batch_size": 4, "sample_steps": 1 },
        "export": { "folder": folder.join("exported"), "name": "first", "stage": "teacher" },
    }));
    train(&first, "autoencoder", 1);
    latents(&first, Budget::default()).unwrap();
    train(&first, "teacher", 1);
    export(&first).unwrap();
    let known = std::fs::read_to_string(folder.join("exported").join("known_words.txt")).unwrap();
    assert!(known.lines().any(|word| word == "disc"), "{known}");
    let second = from_model(&folder, &folder.join("exported"), "second", "lcm");
    latents(&second, Budget::default()).unwrap();
    train(&second, "lcm", 1);
    assert_eq!(second.scheduler().unwrap().rescale_betas_zero_snr, Some(true));
}

#[test]
fn a_flow_is_trained_and_exported_with_its_own_scheduler() {
    let folder = Scratch::with_data("flow");
    let flow = json!({ "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0 });
    let config = folder.config(json!({
        "networks": configs(), "scheduler": flow, "latents": { "count": 8, "batch_size": 8 }, "sample_prompts": ["a disc"],
        "autoencoder": { "batch_size": 2, "crop_px": 32 },
        "teacher": { "batch_size": 4, "sample_steps": 2 },
        "export": { "folder": folder.join("exported"), "name": "flow", "stage": "teacher" },
    }));
    train(&config, "autoencoder", 1);
    latents(&config, Budget::default()).unwrap();
    train(&config, "teacher", 2);
    let exported = export(&config).unwrap();
    let model = ModelSource::open(&exported.folder).unwrap();
    assert_eq!(model.json("scheduler", "scheduler_config.json").unwrap(), flow);
    assert_eq!(
        model.json("", "model_index.json").unwrap()["scheduler"][1],
        flow["_class_name"]
    );
    assert_eq!(paint(&exported.folder).len(), 128 * 128 * 3);
    let mut options = RunOptions::alone(Budget::steps(1), false);
    let error = named("lcm").unwrap().run(&config, &mut options).unwrap_err();
    assert!(error.to_string().contains("LCMScheduler does not know"), "{error}");
}

#[test]
fn a_model_that_is_not_the_one_the_run_began_with_is_refused_and_the_run_stays_as_it_is() {
    let folder = Scratch::with_data("exchanged");
    let model = folder.join("model");
    write_stable_diffusion(&model, &folder.join("data"));
    let config = from_model(&folder, &model, "run", "lcm");
    latents(&config, Budget::default()).unwrap();
    train(&config, "ect", 1);
    let before = saved(&folder.join("run/ect"));
    let refused = |config: &TrainConfig, stage: &str, words: &[&str]| {
        let mut options = RunOptions::alone(Budget::steps(2), true);
        let error = named(stage).unwrap().run(config, &mut options).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    };
    // Its autoencoder is another.
    let other = folder.join("other");
    write_stable_diffusion(&other, &folder.join("data"));
    let weights = other.join("vae").join(weights_name("vae"));
    let vae = std::fs::read_to_string(other.join("vae/config.json")).unwrap();
    let mut source = RandomInit::new(10);
    drop(Vae::new(&vae, "vae", &mut source).unwrap());
    prima_checkpoint::write_safetensors(&weights, &source.into_params(), DType::F32).unwrap();
    let exchanged = from_model(&folder, &other, "run", "lcm");
    refused(&exchanged, "lcm", &["run/latents", "another autoencoder", "run_dir"]);
    // The state to resume is another stage's.
    let lcm = folder.join("run/lcm");
    std::fs::create_dir_all(&lcm).unwrap();
    for file in std::fs::read_dir(folder.join("run/ect")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), lcm.join(file.file_name())).unwrap();
    }
    refused(
        &config,
        "lcm",
        &["run/lcm/state-00000001.safetensors", "buffer.target."],
    );
    assert!(saved(&lcm) == before && saved(&folder.join("run/ect")) == before);
}

#[test]
fn what_cannot_be_is_refused_with_its_name() {
    let folder = Scratch::with_data("refused");
    let model = folder.join("model");
    write_stable_diffusion(&model, &folder.join("data"));
    let config = from_model(&folder, &model, "run", "lcm");
    let mut options = RunOptions::alone(Budget::steps(1), false);
    let error = named("autoencoder").unwrap().run(&config, &mut options).unwrap_err();
    assert!(error.to_string().contains("only the decoder is trained"), "{error}");
    let refused = |sections: Value, words: &[&str]| {
        let mut config = json!({ "data_dir": "d", "run_dir": "r", "export": { "folder": "e", "name": "n" } });
        for (key, value) in sections.as_object().unwrap() {
            config[key] = value.clone();
        }
        let path = folder.join("refused.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let error = TrainConfig::open(&path, |model| ModelSource::open(model))
            .unwrap_err()
            .to_string();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    };
    refused(json!({}), &["refused.json", "`model` or `networks`"]);
    refused(
        json!({ "model": model, "networks": configs() }),
        &["`model` or `networks`"],
    );
    refused(json!({ "model": folder.join("nowhere") }), &["no model at"]);
    refused(json!({ "model": model, "techer": {} }), &["no stage techer", "teacher"]);
    refused(
        json!({ "model": model, "teacher": { "batch": 4 } }),
        &["teacher: unknown field `batch`"],
    );
    refused(
        json!({ "model": model, "lcm": { "huber_c": "big" } }),
        &["lcm: invalid type"],
    );
    let mut options = RunOptions::alone(Budget::steps(1), false);
    for (stage, section, words) in [
        ("ect", json!({ "q": 1.0 }), "ect.q is 1"),
        ("rdm", json!({ "batch_size": 1 }), "rdm.batch_size is below 2"),
        ("rdm", json!({ "renoised": [0.9, 0.1] }), "rdm.renoised is [0.9, 0.1]"),
        (
            "add",
            json!({ "adversarial_weight": 0.0, "distillation_weight": 0.0 }),
            "one of them above",
        ),
        ("mean-flow", json!({}), "addition_embed_type"),
        ("lightning", json!({}), "lightning.steps ends with 1, but epsilon"),
        ("lightning", json!({ "steps": [32, 5] }), "lightning.steps: 5 after 32"),
        (
            "lightning",
            json!({ "steps": [32, 2], "renoised": [0, 1, 2, 3] }),
            "no timestep 0",
        ),
        (
            "dmd2",
            json!({ "divergence": "forward_kl", "gan_weight": 0.0 }),
            "dmd2.divergence asks",
        ),
    ] {
        let config =
            folder.config(json!({ "model": model, "latents": { "count": 4, "batch_size": 4 }, stage: section }));
        latents(&config, Budget::default()).unwrap();
        let error = named(stage)
            .unwrap()
            .run(&config, &mut options)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
}
