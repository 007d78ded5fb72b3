//! `prima models`: what is in a model's files.

use crate::out::say;
use crate::{memory, source};
use anyhow::Result;
use prima_checkpoint::{ModelInfo, info};
use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Say what a model is: its networks, sizes and storage types; weights are not read
    Info {
        /// A diffusers folder, a safetensors file, or `embedded`
        path: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say which packed weights are kept for fast starts, or remove them
    Cache {
        #[command(flatten)]
        cache: memory::CacheArgs,
        /// Remove all of them
        #[arg(long)]
        clear: bool,
    },
}

pub fn run(command: Command) -> Result<()> {
    let (path, json) = match command {
        Command::Info { path, json } => (path, json),
        Command::Cache { cache, clear } => return memory::show(&cache, clear),
    };
    let info = match path.to_str() {
        Some("embedded") => ModelInfo::of(&source::open(None)?)?,
        _ => info(&path)?,
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
