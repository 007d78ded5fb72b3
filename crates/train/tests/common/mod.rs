//! A tiny configuration of every network, and data for it.
#![allow(dead_code)] // each test file uses its own part

use prima_data::dataset::{FORMAT, Kind, Manifest, NounRecord, SpriteRecord, write_jsonl};
use prima_data::{Composer, ComposerOptions, Dataset, Profile, SIZE_PX, bpe};
use prima_tensor::{Param, Philox};
use prima_train::config::{AutoencoderStage, DecoderStage, DistillStage, NetworkConfigs, TeacherStage};
use prima_train::latent_cache::LatentCache;
use prima_train::networks::{self, TextEncoders};
use prima_train::objectives::{
    Autoencoder, ConsistencyDistillation, Decoder, Painter, SamplePrompts, Teacher, TextLatents,
};
use prima_train::optimizer::{AdamWConfig, LrScheduler};
use prima_train::sampling::Sampler;
use prima_train::tokens::{CaptionTokenizer, Tokens};
use prima_train::trainer::{LoopConfig, state_path};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub fn configs() -> NetworkConfigs {
    NetworkConfigs {
        vae: json!({ "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "block_out_channels": [8, 16],
            "latent_channels": 4, "norm_num_groups": 4, "sample_size": 8, "mid_block_add_attention": false,
            "use_quant_conv": false, "use_post_quant_conv": false }),
        unet: json!({ "in_channels": 4, "out_channels": 4, "sample_size": 4,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "block_out_channels": [8, 16],
            "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 16, "attention_head_dim": 2,
            "use_linear_projection": true, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 32 }),
        text_encoder: text_config("CLIPTextModel"),
        text_encoder_2: text_config("CLIPTextModelWithProjection"),
    }
}

pub fn text_config(architecture: &str) -> serde_json::Value {
    json!({ "architectures": [architecture], "vocab_size": 16, "hidden_size": 8, "intermediate_size": 16,
        "projection_dim": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 4,
        "bos_token_id": 14, "eos_token_id": 15 })
}

/// Eight captions, each with its own picture.
pub fn data() -> TextLatents {
    let noise = Philox {
        seed: 5,
        image: 0,
        purpose: 99,
        step: 0,
    }
    .normal(8 * 4 * 4 * 4);
    let captions = (0..8).map(|i| format!("thing {i}")).collect();
    let ids = (0..8).flat_map(|i| [14, i, 15, 15]).collect();
    TextLatents {
        cache: LatentCache::new([4, 4, 4], noise, captions),
        tokens: Tokens { ids, length: 4 },
        seed: 1,
    }
}

pub fn prompts() -> SamplePrompts {
    let vae = networks::vae(&configs(), 0).unwrap().network;
    SamplePrompts {
        vae,
        ids: vec![14, 1, 15, 15],
        count: 1,
        size_px: [8.0; 2],
        latent_shape: [4, 4, 4],
        seed: 0,
    }
}

pub fn teacher() -> Teacher {
    let stage = TeacherStage {
        batch_size: 8,
        ..TeacherStage::default()
    };
    let (unet, text) = (
        networks::unet(&configs(), 3).unwrap(),
        TextEncoders::new(&configs(), 2).unwrap(),
    );
    Teacher::new(unet, text, data(), prompts(), stage)
}

pub fn training() -> LoopConfig {
    let optimizer = AdamWConfig {
        learning_rate: 3e-3,
        lr_warmup_steps: 1,
        lr_scheduler: LrScheduler::Constant,
        ..AdamWConfig::default()
    };
    LoopConfig {
        optimizer,
        batches_per_step: 2,
        recompute: false,
        ema_decay: 0.9,
        log_every: 10,
        sample_every: 1000,
        save_every_s: 1000,
    }
}

/// The autoencoder on the data set in `folder`.
pub fn autoencoder(folder: &Path) -> Autoencoder {
    let composer = Composer::new(
        Dataset::open(folder).unwrap(),
        ComposerOptions::for_profile(Profile::Core, 0),
    )
    .unwrap();
    let stage = AutoencoderStage {
        batch_size: 2,
        crop_px: 32,
        ..AutoencoderStage::default()
    };
    Autoencoder::new(networks::vae(&configs(), 0).unwrap(), composer, stage, 0).unwrap()
}

/// The decoder, half of whose latents a painter makes, and the first weight of its encoder, which is not trained.
pub fn decoder(folder: &Path, batch_size: usize) -> (Decoder, Param) {
    let vae = networks::vae(&configs(), 0).unwrap();
    let is_first = |(key, _): &&(String, Param)| key.starts_with("encoder.conv_in");
    let encoder = vae.params.iter().find(is_first).unwrap().1.clone();
    let options = ComposerOptions {
        style: 1.0,
        ..ComposerOptions::for_profile(Profile::Core, 0)
    };
    let composer = Composer::new(Dataset::open(folder).unwrap(), options).unwrap();
    let words = BTreeMap::from([("disc</w>".to_owned(), 1)]);
    let mut byte_vocabulary = configs();
    for text in [&mut byte_vocabulary.text_encoder, &mut byte_vocabulary.text_encoder_2] {
        text["vocab_size"] = json!(514);
        text["bos_token_id"] = json!(512);
        text["eos_token_id"] = json!(513);
    }
    let painter = Painter {
        unet: networks::unet(&configs(), 3).unwrap().network,
        text: TextEncoders::new(&byte_vocabulary, 2).unwrap(),
        tokenizer: Mutex::new(CaptionTokenizer::from_bpe(&bpe::train(&words, 514)).unwrap()),
        style: "noto".into(),
        unnamed_share: 0.5,
        size_px: [8.0; 2],
        sampler: Sampler::Ddim,
    };
    let stage = DecoderStage {
        batch_size,
        painter_share: 0.5,
        painter_timesteps: vec![vec![999], vec![999, 500]],
        ..DecoderStage::default()
    };
    (Decoder::new(vae, composer, Some(painter), stage, 0), encoder)
}

/// A student that starts elsewhere than its teacher, so that it has something to learn.
pub fn distillation() -> ConsistencyDistillation {
    let make = || networks::unet(&configs(), 3).unwrap();
    let (student, target, frozen) = (make(), make(), make().network);
    let stage = DistillStage {
        batch_size: 8,
        ..DistillStage::default()
    };
    let text = TextEncoders::new(&configs(), 2).unwrap();
    for (key, param) in &student.params {
        if key.starts_with("conv_out") {
            param.update(|v| {
                for (i, x) in v.iter_mut().enumerate() {
                    *x += 0.3 * ((i % 7) as f32 - 3.0);
                }
            });
        }
    }
    let ladder = vec![999, 749, 499, 249];
    ConsistencyDistillation::new(student, target, frozen, text, data(), prompts(), stage, ladder)
}

/// Every tensor of a run's saved state, except how long it took.
pub fn saved(dir: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = prima_checkpoint::TensorFile::open(&state_path(dir)).unwrap();
    let keys = file.tensors().keys().filter(|key| *key != "elapsed_s");
    keys.map(|key| (key.clone(), file.read(key).unwrap().into_vec()))
        .collect()
}

pub fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("prima-train-{name}-{}", std::process::id()))
}

/// One noun with one sprite: a red disc.
pub fn write_dataset(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let side = SIZE_PX as i32;
    let disc = (0..side * side).flat_map(|i| {
        let (x, y) = (i % side - side / 2, i / side - side / 2);
        if x * x + y * y < 2500 {
            [220, 30, 40, 255]
        } else {
            [0; 4]
        }
    });
    std::fs::write(folder.join("sprites.rgba"), disc.collect::<Vec<u8>>()).unwrap();
    let sprite = SpriteRecord {
        noun: 0,
        set: "noto".into(),
        style: "noto".into(),
        kind: Kind::Object,
        hue_shiftable: false,
        hue: 0.0,
        luma: 0.4,
        main_colour: Some("red".into()),
        mean_rgb: [220, 30, 40],
        held_back: false,
    };
    write_jsonl(&folder.join("sprites.jsonl"), &[sprite]).unwrap();
    let noun = NounRecord {
        phrase: "a disc".into(),
        core_rank: Some(0),
        tags: vec![],
        names: [("en".to_owned(), "disc".to_owned())].into(),
    };
    write_jsonl(&folder.join("nouns.jsonl"), &[noun]).unwrap();
    let manifest = Manifest {
        format: FORMAT,
        profile: Profile::Core,
        size_px: SIZE_PX,
        sprites: 1,
        held_back_sprites: 0,
        nouns: 1,
        core_nouns: 1,
        tokenizer_entries: 0,
        seed: 0,
        sources: vec![],
        sha256: String::new(),
    };
    std::fs::write(folder.join("manifest.json"), serde_json::to_string(&manifest).unwrap()).unwrap();
}
