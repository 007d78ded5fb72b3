//! `prima eval words`: what text encoders make of words, without a picture.

use crate::out::say;
use crate::source;
use anyhow::Result;
use clap::Args as ClapArgs;
use prima_data::world::Catalogue;
use prima_eval::Nearest;
use prima_pipeline::{LoadOptions, Pipeline};
use prima_train::TrainConfig;
use std::path::PathBuf;

#[derive(ClapArgs)]
pub struct WordsArgs {
    /// `embedded`, a folder or a file
    #[arg(long)]
    model: Option<String>,
    /// The text encoders that a run has so far, in place of a model's: its configuration (JSON)
    #[arg(long, value_name = "CONFIG", conflicts_with = "model")]
    run: Option<PathBuf>,
    /// Folder with the model pack, for names in other languages
    #[arg(long, value_name = "DIR", default_value = "assets/models3d")]
    models: PathBuf,
    /// List the words whose nearest noun is another
    #[arg(long)]
    wrong: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &WordsArgs) -> Result<()> {
    let names = Catalogue::open(&args.models)?.names;
    let found = if let Some(run) = &args.run {
        let config = TrainConfig::open(run, |model| source::open(Some(model)))?;
        prima_eval::words(&prima_train::text_encoders(&config)?, &names)?
    } else {
        let pipeline = Pipeline::load(&source::open(args.model.as_deref())?, &LoadOptions::default())?;
        prima_eval::words(&pipeline.parts().text_encoders, &names)?
    };
    if args.json {
        say!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    say!(
        "{:34} {:>5} {:>8} {:>8}",
        "nearest is right, %",
        "of",
        "pooled",
        "token"
    );
    let mut lines = vec![
        ("synonyms that no caption has".to_owned(), found.synonyms),
        ("synonyms that no text has".to_owned(), found.never_seen),
    ];
    lines.extend(
        found
            .languages
            .iter()
            .map(|(code, nearest)| (format!("names in {code}"), *nearest)),
    );
    lines.push(("noun and colour".to_owned(), found.colours));
    lines.push(("noun and count".to_owned(), found.counts));
    for (name, Nearest { of, pooled, token }) in lines {
        say!("{name:34} {of:5} {pooled:8.1} {token:8.1}");
    }
    if args.wrong {
        for (word, meant, nearest) in &found.wrong {
            say!("{word}: {nearest}, not {meant}");
        }
    }
    Ok(())
}
