//! `prima eval`: writes an evaluation suite from a data set, and measures a model, or what it learnt from, with it.

use crate::out::say;
use crate::{Usage, source};
use anyhow::{Context, Result};
use clap::{Args as ClapArgs, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use prima_data::Composer;
use prima_data::world::Catalogue;
use prima_eval::{Error, FeatureNet, Judge, Nearest, Quality, Suite, SuiteOptions};
use prima_picture::{Format, Picture, QUALITY, contact_sheet, encode};
use prima_pipeline::{LoadOptions, Pipeline};
use prima_train::TrainConfig;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Command {
    /// Write an evaluation suite: held-back renders of the most common nouns, and colour prompts
    Suite(SuiteArgs),
    /// Measure a model: class and colour accuracy at each number of steps
    Quality(QualityArgs),
    /// Measure the drawings that a model learnt from, as they are and after its autoencoder: the ceiling for `quality`
    Ceiling(CeilingArgs),
    /// Measure what text encoders make of words: is the nearest everyday noun the one that a word means?
    Words(WordsArgs),
}

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

#[derive(ClapArgs)]
pub struct QualityArgs {
    #[command(flatten)]
    judge: JudgeArgs,
    /// Numbers of steps to measure
    #[arg(long, value_delimiter = ',', default_value = "4,1")]
    steps: Vec<usize>,
    /// Pictures per prompt
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Contact sheet to write for each number of steps: `sheet.png` becomes `sheet-4.png`
    #[arg(long)]
    sheet: Option<PathBuf>,
}

#[derive(ClapArgs)]
pub struct CeilingArgs {
    #[command(flatten)]
    judge: JudgeArgs,
    /// The data set the suite was made from
    #[arg(long)]
    data: PathBuf,
}

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

#[derive(ClapArgs)]
struct JudgeArgs {
    /// Suite made by `prima eval suite`
    #[arg(long)]
    suite: PathBuf,
    /// EfficientNet-lite0 weights made by scripts/eval/convert_efficientnet.py
    #[arg(long)]
    features: PathBuf,
    /// `embedded`, a folder or a file
    #[arg(long)]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl JudgeArgs {
    fn open(&self) -> Result<(Suite, FeatureNet, Pipeline)> {
        let suite = Suite::open(&self.suite)?;
        let net = FeatureNet::open(&self.features)?;
        let pipeline = Pipeline::load(&source::open(self.model.as_deref())?, &LoadOptions::default())?;
        Ok((suite, net, pipeline))
    }
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Suite(args) => write_suite(&args),
        Command::Quality(args) => quality(&args),
        Command::Ceiling(args) => ceiling(&args),
        Command::Words(args) => words(&args),
    }
}

fn words(args: &WordsArgs) -> Result<()> {
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

fn write_suite(args: &SuiteArgs) -> Result<()> {
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

fn quality(args: &QualityArgs) -> Result<()> {
    if args.seeds == 0 || args.steps.is_empty() {
        return Err(Usage("--seeds and --steps want at least one value".to_owned()).into());
    }
    let (suite, net, pipeline) = args.judge.open()?;
    let judge = Judge::new(&suite, &net)?;
    let mut rows = Vec::new();
    for &steps in &args.steps {
        let row = with_bar("prompts", |bar| judge.quality(&pipeline, steps, args.seeds, bar))?;
        if let Some(sheet) = &args.sheet {
            write_sheet(sheet, &row, args.seeds as usize)?;
        }
        if !args.judge.json {
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
    if args.judge.json {
        let report = serde_json::json!({
            "model": pipeline.name(), "suite": suite.description, "features": "EfficientNet-lite0, nearest class mean, cosine",
            "results": rows,
        });
        say!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(())
}

fn ceiling(args: &CeilingArgs) -> Result<()> {
    let (suite, net, pipeline) = args.judge.open()?;
    let composer = Composer::open(&args.data, 0)?;
    let judge = Judge::new(&suite, &net)?;
    let rows = with_bar("nouns", |bar| judge.ceiling(&pipeline, &composer, bar))?;
    if args.judge.json {
        say!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    for row in &rows {
        say!(
            "{}: {} drawings, top-1 {:.1} %, top-5 {:.1} %; after the autoencoder {:.1} %, {:.1} %",
            row.style,
            row.drawings.pictures,
            100.0 * row.drawings.top1,
            100.0 * row.drawings.top5,
            100.0 * row.autoencoder.top1,
            100.0 * row.autoencoder.top5
        );
    }
    Ok(())
}

/// About twelve pictures to a row, the seeds of a prompt side by side.
fn write_sheet(path: &Path, row: &Quality, seeds: usize) -> Result<()> {
    let pictures: Vec<Picture> = row.pictures.iter().map(|(_, picture)| picture.clone()).collect();
    let sheet = contact_sheet(&pictures, (12 / seeds).max(1) * seeds, 0);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let out = path.with_file_name(format!("{stem}-{}.png", row.steps));
    let png = encode(&sheet, Format::Png, QUALITY, None)?;
    std::fs::write(&out, png).with_context(|| out.display().to_string())
}

fn with_bar<T>(what: &'static str, work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {eta}").unwrap_or(ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style).with_message(what);
    let done = work(&mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    done
}
