//! `prima train lora`: a folder of pictures to a LoRA in one command, by flags or by a run's configuration.

use super::{Budgeted, Resumption, alone, open, report, train};
use crate::Usage;
use crate::out::{note, say};
use anyhow::Result;
use clap::ValueEnum;
use prima_checkpoint::export::{create_folder, write_json};
use prima_train::{Launch, LoraKeys, discard_lora_latents, export_lora, stages};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Steps that are taken where nothing says how many: enough for a dozen pictures.
const STEPS: u64 = 400;

#[derive(clap::Args)]
pub struct LoraArgs {
    /// The run's configuration (JSON), in place of the flags from --images to --run-dir
    #[arg(conflicts_with_all = ["images", "Flags"], required_unless_present = "images")]
    config: Option<PathBuf>,
    /// A folder of pictures, each with its words in a .txt beside it or in metadata.jsonl or .csv; or of tar shards
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
    /// The file to write [default: NAME.safetensors beside the run's folder, NAME the folder's]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the file's keys are spelt
    #[arg(long, value_name = "KEYS", default_value = "kohya")]
    keys: Keys,
    #[command(flatten)]
    budget: Budgeted,
    #[command(flatten)]
    resumption: Resumption,
}

/// What a configuration would say.
#[derive(clap::Args)]
struct Flags {
    /// Words for pictures without: "a photo of a zog"
    #[arg(long, value_name = "WORDS", requires = "images")]
    caption: Option<String>,
    /// The model to train beside: `embedded`, a diffusers folder, one file, or a model of the hub's cache [default: embedded]
    #[arg(long, value_name = "embedded|DIR|FILE", requires = "images")]
    model: Option<String>,
    /// Of the two matrices beside a layer [default: 8]
    #[arg(long, value_name = "R", requires = "images")]
    rank: Option<usize>,
    /// The product counts A / R [default: R]
    #[arg(long, value_name = "A", requires = "images")]
    alpha: Option<f32>,
    /// Another rank for a block, such as up_blocks.1=16; 0 leaves it out (repeatable)
    #[arg(long, value_name = "BLOCK=R", value_parser = block_rank, requires = "images")]
    block_rank: Vec<(String, usize)>,
    /// Which layers get a LoRA [default: transformer]
    #[arg(long, value_name = "KIND", requires = "images")]
    layers: Option<Layers>,
    /// Train LoRAs of the text encoders too
    #[arg(long, requires = "images")]
    text_encoders: bool,
    /// What the subject is one of ("a dog"): the model goes on painting that as before
    #[arg(long, value_name = "PROMPT", requires = "images")]
    prior: Option<String>,
    /// Pictures of the prior that the model paints [default: 24]
    #[arg(long, value_name = "N", requires = "prior")]
    prior_count: Option<usize>,
    /// Side of the square whose area pictures are cut to, in pixels [default: the model's]
    #[arg(long, value_name = "PX", requires = "images")]
    resolution: Option<usize>,
    /// Show every picture mirrored too
    #[arg(long, requires = "images")]
    flip: bool,
    /// Pictures a step [default: 4]
    #[arg(long, value_name = "N", requires = "images")]
    batch_size: Option<usize>,
    /// [default: 0.0005]
    #[arg(long, value_name = "RATE", requires = "images")]
    learning_rate: Option<f32>,
    /// Keep the model's weights in bf16, and compute the blocks' insides twice: for large models
    #[arg(long, requires = "images")]
    low_memory: bool,
    /// Prompts of the grids that are painted on the way (repeatable)
    #[arg(long, value_name = "PROMPT", requires = "images")]
    sample: Vec<String>,
    /// Of the noise and the order of the pictures [default: 0]
    #[arg(long, value_name = "S", requires = "images")]
    seed: Option<u64>,
    /// Where states, latents and grids go [default: the output's name with -run behind it]
    #[arg(long, value_name = "DIR", requires = "images")]
    run_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keys {
    /// As A1111 and ComfyUI read them, and diffusers too
    Kohya,
    /// As diffusers and peft write them
    Peft,
}

#[derive(Clone, Copy, ValueEnum)]
enum Layers {
    /// Attention alone
    Attention,
    /// All of the transformer blocks
    Transformer,
    /// The residual blocks' convolutions too
    All,
}

impl Layers {
    fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Transformer => "transformer",
            Self::All => "all",
        }
    }
}

fn block_rank(text: &str) -> Result<(String, usize), String> {
    let parts = text
        .split_once('=')
        .and_then(|(block, rank)| Some((block, rank.parse().ok()?)));
    let (block, rank) = parts.ok_or("use BLOCK=R, such as up_blocks.1=16")?;
    Ok((block.to_owned(), rank))
}

/// `fields` without those that nobody gave.
fn given(fields: &[(&str, Value)]) -> Map<String, Value> {
    let fields = fields.iter().filter(|(_, value)| !value.is_null());
    fields.map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

impl Flags {
    /// As a run's configuration.
    fn config(&self, images: &Path, run_dir: &Path, name: &str) -> Value {
        let ranks: Map<String, Value> = self
            .block_rank
            .iter()
            .map(|(block, rank)| (block.clone(), json!(rank)))
            .collect();
        let size = given(&[
            ("rank", json!(self.rank)),
            ("alpha", json!(self.alpha)),
            ("layers", json!(self.layers.map(Layers::name))),
            (
                "block_ranks",
                if ranks.is_empty() {
                    Value::Null
                } else {
                    Value::Object(ranks)
                },
            ),
        ]);
        let prior = self
            .prior
            .as_ref()
            .map(|prompt| given(&[("prompt", json!(prompt)), ("count", json!(self.prior_count))]));
        let optimizer = self
            .learning_rate
            .map(|rate| json!({ "learning_rate": rate, "lr_warmup_steps": 10, "lr_final_fraction": 0.1 }));
        let training = given(&[
            ("optimizer", json!(optimizer)),
            ("recompute", if self.low_memory { json!(true) } else { Value::Null }),
            ("ema_decay", json!(0.99)),
            ("sample_every", json!(100)),
            ("save_every_s", json!(60)),
        ]);
        let lora = given(&[
            ("loop", json!(training)),
            ("size", json!(size)),
            ("batch_size", json!(self.batch_size)),
            ("trains_text_encoders", json!(self.text_encoders)),
            ("prior", json!(prior)),
            ("bf16_base", json!(self.low_memory)),
        ]);
        let pictures = given(&[
            ("path", json!(images)),
            ("caption", json!(self.caption)),
            ("resolution_px", json!(self.resolution)),
            ("flip", json!(self.flip)),
        ]);
        json!({
            "model": self.model.as_deref().unwrap_or("embedded"), "run_dir": run_dir, "seed": self.seed.unwrap_or(0),
            "pictures": pictures, "lora": lora, "sample_prompts": self.sample,
            "export": { "folder": run_dir.join("export"), "name": name },
        })
    }
}

impl LoraArgs {
    /// The run's configuration, and the file to write.
    fn prepare(&self) -> Result<(PathBuf, PathBuf)> {
        if let Some(config) = &self.config {
            let output = self
                .output
                .clone()
                .unwrap_or_else(|| config.with_extension("safetensors"));
            return Ok((config.clone(), output));
        }
        let (Some(images), Some(output)) = (&self.images, &self.output) else {
            return Err(Usage("say with -o which file to write, such as -o zog.safetensors".to_owned()).into());
        };
        let name = output.file_stem().unwrap_or_default().to_string_lossy();
        let beside = || output.with_file_name(format!("{name}-run"));
        let run_dir = self.flags.run_dir.clone().unwrap_or_else(beside);
        create_folder(&run_dir)?;
        let config = run_dir.join("config.json");
        write_json(&config, &self.flags.config(images, &run_dir, &name))?;
        Ok((config, output.clone()))
    }
}

pub fn run(args: &LoraArgs, launch: &Launch) -> Result<()> {
    alone("lora", launch)?;
    args.budget.choose_device(launch)?;
    let (path, output) = args.prepare()?;
    let config = open(&path)?;
    if args.resumption.overwrite {
        discard_lora_latents(&config)?;
    }
    let stage = stages::STAGES.iter().find(|stage| stage.name == "lora");
    let stage = stage.ok_or_else(|| Usage("this build trains no LoRAs".to_owned()))?;
    let summary = train(stage, &config, args.budget.budget(STEPS), &args.resumption, launch)?;
    let keys = match args.keys {
        Keys::Kohya => LoraKeys::Kohya,
        Keys::Peft => LoraKeys::Peft,
    };
    let written = export_lora(&config, &output, keys)?;
    report(&summary)?;
    note!("{} parameters, {} bytes", written.parameters, written.bytes);
    say!("{}", written.folder.display());
    Ok(())
}
