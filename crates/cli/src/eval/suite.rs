//! `prima eval suite`, and a model measured by one: class and colour accuracy.

use super::{AtSteps, with_bar, write_sheet};
use crate::Usage;
use crate::out::say;
use anyhow::Result;
use clap::Args as ClapArgs;
use prima_data::Composer;
use prima_eval::{Error, Suite, SuiteJudge, SuiteOptions, SuiteQuality};
use prima_picture::{Picture, contact_sheet};
use std::path::{Path, PathBuf};

#[derive(ClapArgs)]
pub struct SuiteArgs {
    /// Data set made by `prima data build`
    #[arg(long)]
    data: PathBuf,
    /// Folder to write
    #[arg(short, long)]
    out: PathBuf,
    /// Renders per class; half from the held-back sprite, half from the others on their own placement
    #[arg(long, default_value_t = 12)]
    pictures: usize,
    /// Only sprites that training never saw (one drawing style a class: a harder, narrower mean)
    #[arg(long)]
    held_back_only: bool,
    /// Language of the class prompts: en, or one that the data set has names in (de, es, fr, it, ja, pt, zh)
    #[arg(long, default_value = "en")]
    language: String,
}

pub fn run(args: &SuiteArgs) -> Result<()> {
    if args.pictures == 0 {
        return Err(Usage("--pictures 0 leaves nothing to compare with: use 1 or more".to_owned()).into());
    }
    let options = SuiteOptions {
        pictures: args.pictures,
        held_back_only: args.held_back_only,
        language: args.language.clone(),
    };
    let composer = Composer::open(&args.data, 0)?;
    let written = with_bar("classes", |bar| Suite::write(&composer, &args.out, &options, bar));
    written.map_err(|error| match error {
        Error::Language { .. } => Usage(format!("--{error}")).into(),
        other => anyhow::Error::from(other),
    })?;
    say!("{}", args.out.join("suite.json").display());
    Ok(())
}

/// `prima eval quality --suite`.
pub fn measure(folder: &Path, args: &AtSteps) -> Result<()> {
    let suite = Suite::open(folder)?;
    let (net, pipeline) = args.measure.open()?;
    let judge = SuiteJudge::new(&suite, &net)?;
    let json = args.measure.json;
    let mut rows = Vec::new();
    for &steps in &args.steps {
        let row = with_bar("prompts", |bar| judge.quality(&pipeline, steps, args.seeds, bar))?;
        if let Some(sheet) = &args.sheet {
            write_sheet(sheet, steps, &drawn(&row, args.seeds as usize))?;
        }
        if !json {
            say!(
                "{steps} steps: top-1 {:.1} %, top-5 {:.1} % of {} pictures; colours {:.1} % of {}",
                100.0 * row.classes.top1,
                100.0 * row.classes.top5,
                row.classes.pictures,
                100.0 * row.colours,
                suite.colours.len()
            );
        }
        rows.push(row);
    }
    if json {
        let report = serde_json::json!({
            "model": pipeline.name(), "suite": suite.description, "features": "EfficientNet-lite0, nearest class mean, cosine",
            "results": rows,
        });
        say!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(())
}

/// About twelve pictures to a row, the seeds of a prompt side by side.
fn drawn(row: &SuiteQuality, seeds: usize) -> Picture {
    let pictures: Vec<Picture> = row.pictures.iter().map(|(_, picture)| picture.clone()).collect();
    contact_sheet(&pictures, (12 / seeds).max(1) * seeds, 0)
}
