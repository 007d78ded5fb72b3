//! `prima models`: what models there are and whence they come, what is in their files, and the same model in 8 bits.

mod pull;
mod quantize;
mod shelf;

pub use shelf::FolderArg;

use crate::out::say;
use crate::{loras, memory, source};
use anyhow::Result;
use prima_checkpoint::{ModelInfo, info};
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Get a model from the hub into the hub's own cache: only the files that are needed, resumed and checked
    Pull(pull::Args),
    /// Say which models there are: embedded, in the folder of models, in the hub's cache
    List {
        #[command(flatten)]
        folder: FolderArg,
        /// Print one JSON list
        #[arg(long)]
        json: bool,
    },
    /// Say what a model is: its networks, sizes and storage types; weights are not read
    #[command(visible_alias = "show")]
    Info {
        /// A diffusers folder, a safetensors file, a name that `prima models list` says, or `embedded`
        path: PathBuf,
        #[command(flatten)]
        folder: FolderArg,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Put a file or a folder among the models
    Import(shelf::ImportArgs),
    /// Remove a model from the folder of models or from the hub's cache
    Remove(shelf::RemoveArgs),
    /// Say which packed weights are kept for fast starts, or remove them
    Cache {
        #[command(flatten)]
        cache: memory::CacheArgs,
        /// Remove all of them
        #[arg(long)]
        clear: bool,
    },
    /// Write a model with its layers in 8 bits, as far as each of them stands it
    Quantize(quantize::Args),
    /// Write a model with LoRAs added to its weights
    Merge(loras::MergeArgs),
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Pull(args) => pull::run(&args),
        Command::List { folder, json } => shelf::list(&folder, json),
        Command::Import(args) => shelf::import(&args),
        Command::Remove(args) => shelf::remove(&args),
        Command::Info { path, folder, json } => say_what_it_is(&path, &folder, json),
        Command::Cache { cache, clear } => memory::show(&cache, clear),
        Command::Quantize(args) => quantize::run(&args),
        Command::Merge(args) => loras::write_merged(&args),
    }
}

fn say_what_it_is(path: &Path, folder: &FolderArg, json: bool) -> Result<()> {
    let info = if path.to_str() == Some("embedded") {
        ModelInfo::of(&source::open(None)?)?
    } else {
        info(&source::path_of(path, &folder.library())?)?
    };
    if json {
        say!("{}", serde_json::to_string_pretty(&info)?);
    } else {
        print(&info)?;
    }
    Ok(())
}

fn print(info: &ModelInfo) -> Result<()> {
    let class = info.pipeline_class.as_deref().unwrap_or("no pipeline");
    say!("{}: {class}, {}, {}", info.name, info.layout, info.preset);
    say!(
        "{:<16} {:<32} {:>14} {:>8} {:>10}  storage",
        "",
        "",
        "parameters",
        "tensors",
        "bytes"
    );
    for part in &info.components {
        let dtypes: Vec<&str> = part.dtypes.keys().map(String::as_str).collect();
        let class = part.class_name.as_deref().unwrap_or("");
        say!(
            "{:<16} {class:<32} {:>14} {:>8} {:>10}  {}",
            part.name,
            part.parameters,
            part.tensors,
            part.bytes,
            dtypes.join(", ")
        );
    }
    say!(
        "{:<16} {:<32} {:>14} {:>8} {:>10}",
        "total",
        "",
        info.parameters,
        "",
        info.bytes
    );
    Ok(())
}
