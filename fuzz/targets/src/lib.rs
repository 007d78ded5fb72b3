//! What is fuzzed: one function a target, which must return for any bytes, without a panic, in a second and in bounded
//! memory. cargo-fuzz (`fuzz/fuzz_targets`) and the fixed mutation run of stable Rust (`src/main.rs`) both call these.

pub mod mutate;

use prima_checkpoint::lora::LoraFile;
use prima_checkpoint::{EmbeddingFile, Init, ModelSource, ParamSource, Reader, TensorFile, info, what_is_it};
use prima_models::{
    AutoencoderKlConfig, AutoencoderTinyConfig, ClipTextConfig, Tokenizer, TokenizerFiles, Unet2dConditionConfig,
};
use prima_picture::{Parameters, Picture, read_parameters};
use prima_pipeline::{ModelCard, PromptSyntax, WeightedPrompt, parse_size, prompt_texts, scheduler_named};
use prima_schedulers::{Schedule, ScheduleOptions, SchedulerConfig, SchedulerKind, TimestepSpacing};
use prima_server::Readers;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Something that reads what strangers send.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Executions of the short run in `cargo xtask test`: some seconds' worth.
    pub short_run: u64,
}

pub const TARGETS: [Target; 16] = [
    target("safetensors", safetensors, 12_000),
    target("single_file", single_file, 12_000),
    target("gguf", gguf, 12_000),
    target("lora", lora, 12_000),
    target("configs", configs, 12_000),
    target("tokenizer", tokenizer, 5_000),
    target("pictures", pictures, 12_000),
    target("metadata", metadata, 12_000),
    target("prompt", prompt, 12_000),
    target("schedule", schedule, 12_000),
    target("live", live, 3_000),
    target("openai", openai, 3_000),
    target("openai_edit", openai_edit, 3_000),
    target("a1111", a1111, 3_000),
    target("prediction", prediction, 3_000),
    target("comfy", comfy, 3_000),
];

const fn target(name: &'static str, run: fn(&[u8]), short_run: u64) -> Target {
    Target { name, run, short_run }
}

/// Each tensor as the file says it is.
fn every_tensor(reader: &mut Reader) {
    let tensors: Vec<(String, Vec<usize>)> = reader
        .tensors()
        .map(|(key, _, shape)| (key.to_owned(), shape))
        .collect();
    for (key, shape) in tensors {
        let _ = black_box(reader.param(&key, &shape, Init::Zeros));
    }
}

/// A safetensors file: its header, and every tensor of a size that this header can have data for.
pub fn safetensors(data: &[u8]) {
    let Ok(mut reader) = Reader::from_bytes("fuzz", data.to_vec()) else {
        return;
    };
    every_tensor(&mut reader);
    let _ = black_box(reader.finish());
}

/// A safetensors file that is taken for a model of one file: its kind, its summary, its configs, its keys.
pub fn single_file(data: &[u8]) {
    let Ok(file) = TensorFile::from_bytes("fuzz", data.to_vec()) else {
        return;
    };
    black_box(what_is_it(&file));
    let Some(path) = written("safetensors", data) else {
        return;
    };
    let _ = black_box(info(&path));
    let source = ModelSource::SingleFile(path.clone());
    for component in ["unet", "vae", "text_encoder", "text_encoder_2"] {
        if let Ok(config) = source.json(component, "config.json") {
            configs_of(&config.to_string());
        }
        if let Ok(mut reader) = source.component_reader(component) {
            every_tensor(&mut reader);
        }
    }
    let _ = std::fs::remove_file(path);
}

/// A GGUF file: its header, and every tensor as the file says it is.
pub fn gguf(data: &[u8]) {
    let Some(path) = written("gguf", data) else { return };
    if let Ok(file) = TensorFile::open(&path) {
        black_box(what_is_it(&file));
        let mut reader = Reader::from_file(file);
        every_tensor(&mut reader);
    }
    let _ = black_box(info(&path));
    let _ = std::fs::remove_file(path);
}

/// A LoRA: which layers it changes, and what becomes of each in layers of the usual shapes; the same file as a learnt word.
pub fn lora(data: &[u8]) {
    let Some(path) = written("safetensors", data) else {
        return;
    };
    if let Ok(file) = LoraFile::open(&path) {
        for layer in file.layers() {
            for shape in [&[4, 4][..], &[4, 4, 3, 3], &[4]] {
                let _ = black_box(file.change(layer, shape));
            }
        }
        let _ = black_box(file.short_hash());
    }
    let _ = black_box(EmbeddingFile::open(&path).map(drop));
    let _ = std::fs::remove_file(path);
}

/// A file for readers that only take paths.
fn written(ending: &str, data: &[u8]) -> Option<PathBuf> {
    let path = std::env::temp_dir().join(format!("prima-fuzz-{}.{ending}", std::process::id()));
    std::fs::write(&path, data).ok()?;
    Some(path)
}

/// A config, as each of the classes that there are.
pub fn configs(data: &[u8]) {
    configs_of(&String::from_utf8_lossy(data));
}

fn configs_of(json: &str) {
    let _ = black_box(Unet2dConditionConfig::from_json(json, "fuzz"));
    let _ = black_box(ClipTextConfig::from_json(json, "fuzz"));
    let _ = black_box(AutoencoderKlConfig::from_json(json, "fuzz").map(|config| config.scale_factor()));
    let _ = black_box(AutoencoderTinyConfig::from_json(json, "fuzz").map(|config| config.scale_factor()));
    let _ = black_box(ModelCard::parse(json, "fuzz"));
    if let Ok(config) = SchedulerConfig::from_json(json) {
        let _ = black_box(Schedule::new(&config, &ScheduleOptions::steps(4)));
    }
}

/// A tokenizer.json; or, divided by a zero byte, vocab.json and merges.txt.
pub fn tokenizer(data: &[u8]) {
    let mut parts = data.splitn(2, |&byte| byte == 0).map(<[u8]>::to_vec);
    let (first, second) = (parts.next(), parts.next());
    let files = match second {
        None => TokenizerFiles {
            tokenizer_json: first,
            ..TokenizerFiles::default()
        },
        Some(_) => TokenizerFiles {
            vocab_json: first,
            merges_txt: second,
            ..TokenizerFiles::default()
        },
    };
    if let Ok(tokenizer) = Tokenizer::new("fuzz", &files, 77) {
        let _ = black_box(tokenizer.encode("a red apple, 2 caf\u{e9}s!"));
    }
}

/// A picture, decoded and made small, as an upload is.
pub fn pictures(data: &[u8]) {
    if let Ok(picture) = Picture::decode_at_most(data, "fuzz", 1 << 20) {
        black_box(picture.resized(64, 64));
    }
}

/// What a picture says of its making.
pub fn metadata(data: &[u8]) {
    if let Ok(Some(parameters)) = read_parameters(data) {
        black_box(parameters.to_text());
    }
}

/// The syntax of prompts, and of the settings that come with them.
pub fn prompt(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for syntax in [PromptSyntax::Auto, PromptSyntax::A1111] {
        black_box(WeightedPrompt::parse(&text, syntax));
        black_box(prompt_texts(&text, syntax, 4));
    }
    let parameters = Parameters::parse(&text);
    black_box(Parameters::parse(&parameters.to_text()));
    let _ = black_box(parse_size("size", &text));
    let _ = black_box(scheduler_named(Some(&text)));
}

/// Scheduler options of a request, on the config of Stable Diffusion. A table that comes of them has finite timesteps.
///
/// # Panics
/// If it has not: that is what is looked for.
pub fn schedule(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut byte = move || bytes.next().unwrap_or(0);
    let kind = SchedulerKind::ALL[byte() as usize % SchedulerKind::ALL.len()];
    let spacing = TimestepSpacing::ALL[byte() as usize % TimestepSpacing::ALL.len()];
    let flags = byte();
    let mut number = || f64::from_bits(u64::from_le_bytes(std::array::from_fn(|_| byte())));
    let (eta, strength, first) = (number(), number(), number());
    let steps = usize::from(byte()) * 4;
    let options = ScheduleOptions {
        num_inference_steps: Some(steps),
        scheduler: Some(kind),
        spacing: (flags & 1 == 1).then_some(spacing),
        timesteps: (flags & 2 == 2).then(|| vec![first, f64::from(byte()), f64::from(byte())]),
        prediction_type: None,
        eta: (flags & 4 == 4).then_some(eta),
    };
    let config = SchedulerConfig::stable_diffusion(kind, prima_schedulers::ConfigSpacing::Leading);
    let Ok(schedule) = Schedule::new(&config, &options) else {
        return;
    };
    assert!(schedule.rows.iter().all(|row| row.timestep.is_finite()), "{options:?}");
    let _ = black_box(schedule.truncate(strength));
}

/// A server that has the tiny model of `goldens/` and does not paint.
///
/// # Panics
/// If it cannot be had, or understands nothing.
static READERS: LazyLock<Readers> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/tiny-sdxl");
    let readers = ModelSource::open(folder)
        .ok()
        .and_then(|model| Readers::new(model).ok());
    match readers {
        Some(readers) if readers.openai(br#"{"prompt": "a"}"#) => readers,
        _ => panic!("{folder} is no model that a server can use"),
    }
});

/// A message of the live protocol, in text or with a picture.
pub fn live(data: &[u8]) {
    black_box(READERS.live(data, !data.starts_with(b"{")));
}

/// The body of a request to OpenAI's API.
pub fn openai(data: &[u8]) {
    black_box(READERS.openai(data));
}

/// The form of an edit.
pub fn openai_edit(data: &[u8]) {
    black_box(READERS.openai_edit(data));
}

/// The body of a request to the web UI's API: to paint, to paint over, to read what a picture says.
pub fn a1111(data: &[u8]) {
    black_box(READERS.a1111(data, false));
    black_box(READERS.a1111(data, true));
    black_box(READERS.png_info(data));
}

/// The body of a request to a hosted model.
pub fn prediction(data: &[u8]) {
    black_box(READERS.prediction(data));
}

/// A graph of ComfyUI's nodes.
pub fn comfy(data: &[u8]) {
    black_box(READERS.comfy(data));
}
