//! `--lora`, `--lora-dir`, `--embedding` and `--embeddings-dir`: what changes a model's layers and words; `prima models merge`.

use crate::out::{note, say};
use crate::{Usage, source};
use anyhow::Result;
use prima_pipeline::{EmbeddingOptions, LoadOptions, LoraChoice, LoraOptions, merge};
use std::path::PathBuf;

#[derive(clap::Args, Default)]
pub struct Args {
    /// A LoRA (or LoHa, LoKr, DoRA ...) and its weight, 1 if not said; a file, or a name in the folder of LoRAs (repeatable)
    #[arg(long, value_name = "FILE[:WEIGHT]", value_parser = weighted)]
    lora: Vec<(PathBuf, f32)>,
    /// A folder of LoRAs: prompts name them without the ending, as in <lora:name:0.8>
    #[arg(long, value_name = "DIR", env = "PRIMA_LORA_DIR")]
    lora_dir: Option<PathBuf>,
    /// A learnt word (textual inversion) and what it is called, the file's name if not said (repeatable)
    #[arg(long, value_name = "FILE[:WORD]", value_parser = named)]
    embedding: Vec<(PathBuf, Option<String>)>,
    /// A folder of learnt words: prompts name them without the ending
    #[arg(long, value_name = "DIR", env = "PRIMA_EMBEDDINGS_DIR")]
    embeddings_dir: Option<PathBuf>,
}

impl Args {
    /// `options` with these.
    pub fn with(&self, options: LoadOptions) -> LoadOptions {
        LoadOptions {
            loras: LoraOptions {
                folder: self.lora_dir.clone(),
                standing: self.lora.clone(),
            },
            embeddings: EmbeddingOptions {
                folder: self.embeddings_dir.clone(),
                files: self.embedding.clone(),
            },
            ..options
        }
    }
}

/// A file, and a word behind a colon that is not part of its path.
fn named(text: &str) -> Result<(PathBuf, Option<String>), &'static str> {
    match text.rsplit_once(':') {
        Some((path, word)) if path.len() > 1 && !word.is_empty() && !word.contains(['/', '\\']) => {
            Ok((PathBuf::from(path), Some(word.to_owned())))
        }
        _ if text.is_empty() => Err("use a file such as word.safetensors"),
        _ => Ok((PathBuf::from(text), None)),
    }
}

/// A file, and its weight behind a colon.
fn weighted(text: &str) -> Result<(PathBuf, f32), String> {
    // A colon may be part of a path.
    let weight = text
        .rsplit_once(':')
        .and_then(|(path, weight)| Some((path, weight.parse::<f32>().ok()?)));
    let (path, weight) = weight.unwrap_or((text, 1.0));
    if path.is_empty() || !LoraChoice::is_weight(weight) {
        return Err(format!(
            "use a file and a weight from -{0} to {0}, such as style.safetensors:0.8",
            LoraChoice::MOST
        ));
    }
    Ok((PathBuf::from(path), weight))
}

#[derive(clap::Args)]
pub struct MergeArgs {
    /// `embedded`, a diffusers folder, or a single-file checkpoint
    model: String,
    /// A LoRA and its weight, 1 if not said (repeatable)
    #[arg(long, value_name = "FILE[:WEIGHT]", value_parser = weighted, required = true)]
    lora: Vec<(PathBuf, f32)>,
    /// The folder to write, which must not be there yet or be empty
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

pub fn write_merged(args: &MergeArgs) -> Result<()> {
    let taken = std::fs::read_dir(&args.output).is_ok_and(|mut entries| entries.next().is_some());
    if taken || args.output.is_file() {
        let message = format!("{} is there already: name a new folder", args.output.display());
        return Err(Usage(message).into());
    }
    let source = source::open(Some(&args.model))?;
    for said in merge(&source, &args.lora, &args.output)? {
        note!("warning: {said}");
    }
    say!("{}", args.output.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_stands_behind_the_last_colon() {
        let of = |text: &str| weighted(text).map(|(path, weight)| (path.display().to_string(), weight));
        assert_eq!(of("a.safetensors"), Ok(("a.safetensors".to_owned(), 1.0)));
        assert_eq!(of("a:b.safetensors:-0.5"), Ok(("a:b.safetensors".to_owned(), -0.5)));
        assert_eq!(
            of("C:\\loras\\a.safetensors"),
            Ok(("C:\\loras\\a.safetensors".to_owned(), 1.0))
        );
        assert!(of(":1").is_err() && of("a:1e9").is_err() && of("a:nan").is_err());
    }
}
