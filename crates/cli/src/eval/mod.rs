//! `prima eval`: writes an evaluation suite from a data set, and measures a model, or what it learnt from, with it.

mod ceiling;
mod distance;
mod words;

use crate::out::say;
use crate::{Usage, source};
use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use prima_checkpoint::export::write_bytes;
use prima_data::Composer;
use prima_eval::{Error, FeatureNet, Judge, Quality, Suite, SuiteOptions};
use prima_picture::{Format, Picture, QUALITY, contact_sheet, encode};
use prima_pipeline::{LoadOptions, Pipeline};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Command {
    /// Write an evaluation suite: held-back renders of the most common nouns, and colour prompts
    Suite(SuiteArgs),
    /// Measure a model: class and colour accuracy at each number of steps
    Quality(QualityArgs),
    /// Measure the drawings that a model learnt from, as they are and after its autoencoder: the ceiling for `quality`
    Ceiling(ceiling::CeilingArgs),
    /// Measure how far one folder of pictures is from another: Frechet and kernel distance, precision, recall
    Distance(distance::DistanceArgs),
    /// Measure what text encoders make of words: is the nearest everyday noun the one that a word means?
    Words(words::WordsArgs),
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
        Command::Ceiling(args) => ceiling::run(&args),
        Command::Distance(args) => distance::run(&args),
        Command::Words(args) => words::run(&args),
    }
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

/// About twelve pictures to a row, the seeds of a prompt side by side.
fn write_sheet(path: &Path, row: &Quality, seeds: usize) -> Result<()> {
    let pictures: Vec<Picture> = row.pictures.iter().map(|(_, picture)| picture.clone()).collect();
    let sheet = contact_sheet(&pictures, (12 / seeds).max(1) * seeds, 0);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let out = path.with_file_name(format!("{stem}-{}.png", row.steps));
    let png = encode(&sheet, Format::Png, QUALITY, None)?;
    Ok(write_bytes(&out, &png)?)
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
