//! A tiny configuration of every network, and data for it. The tests of `prima train` use it too.
#![allow(dead_code)] // each test uses its own part

use prima_checkpoint::write_safetensors;
use prima_data::dataset::{FORMAT, Kind, Manifest, NounRecord, SpriteRecord, write_jsonl};
use prima_data::{Profile, SIZE_PX, bpe};
use prima_tensor::{DType, Param, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every byte, twice, two words and the special tokens.
const VOCABULARY: usize = 521;

/// The section `networks`.
pub fn configs() -> Value {
    json!({
        "vae": { "down_block_types": vec!["DownEncoderBlock2D"; 6], "up_block_types": vec!["UpDecoderBlock2D"; 6],
            "block_out_channels": [8, 8, 8, 8, 8, 16], "layers_per_block": 1, "latent_channels": 4, "norm_num_groups": 4,
            "sample_size": 128, "mid_block_add_attention": false, "use_quant_conv": false, "use_post_quant_conv": false },
        "unet": { "in_channels": 4, "out_channels": 4, "sample_size": 4,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "block_out_channels": [8, 16],
            "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 16, "attention_head_dim": 2,
            "use_linear_projection": true, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 32 },
        "text_encoder": text_config("CLIPTextModel"),
        "text_encoder_2": text_config("CLIPTextModelWithProjection"),
    })
}

pub fn text_config(architecture: &str) -> Value {
    json!({ "architectures": [architecture], "vocab_size": VOCABULARY, "hidden_size": 8, "intermediate_size": 16,
        "projection_dim": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 6,
        "bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1 })
}

/// The states that a stage's folder lists, oldest first: file, step and SHA-256.
pub fn listed(dir: &Path) -> Vec<Value> {
    let Ok(text) = std::fs::read(dir.join("states.json")) else {
        return Vec::new();
    };
    let list: Value = serde_json::from_slice(&text).unwrap();
    list["states"].as_array().unwrap().clone()
}

/// The step of the newest state; 0 if there is none.
pub fn saved_step(dir: &Path) -> u64 {
    listed(dir).last().map_or(0, |state| state["step"].as_u64().unwrap())
}

/// The last step that was told, which is before it is saved.
pub fn told(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap_or_default();
    let mut lines = text.lines().rev();
    let last: Option<Value> = lines.find_map(|line| serde_json::from_str(line).ok());
    last.map_or(0, |line| line["step"].as_u64().unwrap())
}

/// The file of the newest state.
pub fn newest(dir: &Path) -> PathBuf {
    dir.join(listed(dir).last().unwrap()["file"].as_str().unwrap())
}

/// Every tensor of a run's newest state, except how long it took.
pub fn saved(dir: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = prima_checkpoint::TensorFile::open(&newest(dir)).unwrap();
    let keys = file.tensors().keys().filter(|key| *key != "elapsed_s");
    keys.map(|key| (key.clone(), file.read(key).unwrap().into_vec()))
        .collect()
}

/// One noun with one sprite, a red disc, and a tokenizer that knows its name; four texts with embeddings.
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
        tokenizer_entries: VOCABULARY,
        seed: 0,
        sources: vec![],
        sha256: String::new(),
    };
    std::fs::write(folder.join("manifest.json"), serde_json::to_string(&manifest).unwrap()).unwrap();
    let words = BTreeMap::from([("disc".to_owned(), 5), ("thing".to_owned(), 5)]);
    bpe::train(&words, VOCABULARY).write(&folder.join("tokenizer")).unwrap();
    std::fs::write(folder.join("texts.txt"), "disc\nthing\na disc\na disc and a thing\n").unwrap();
    let values = (0..4 * 8).map(|i| if i % 9 == 0 { 2.0 } else { -0.3 }).collect();
    let embeddings = Param::new(Tensor::from_vec(values, &[4, 8]));
    let path = folder.join("embeddings.safetensors");
    write_safetensors(&path, &[("embeddings".into(), embeddings)], DType::F16).unwrap();
}
