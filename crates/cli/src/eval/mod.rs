//! `prima eval`: does a model paint what the words say, by a judge trained on renders or by a suite of a data set's drawings?

mod ceiling;
mod distance;
mod judge;
mod prompts;
mod quality;
mod report;
mod suite;
mod words;

use crate::source;
use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use prima_checkpoint::export::write_bytes;
use prima_eval::FeatureNet;
use prima_picture::{Format, Picture, QUALITY, encode};
use prima_pipeline::{LoadOptions, Pipeline};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Command {
    /// Train a judge on the scene generator's renders: what do they show?
    Judge(judge::JudgeArgs),
    /// Measure a model at each number of steps, by a judge or by a suite
    Quality(quality::QualityArgs),
    /// Paint the prompts of a list on a contact sheet, each with its words beneath it
    Prompts(prompts::PromptsArgs),
    /// Write an evaluation suite: held-back renders of the most common nouns, and colour prompts
    Suite(suite::SuiteArgs),
    /// Measure the drawings that a model learnt from, as they are and after its autoencoder: the ceiling for a suite
    Ceiling(ceiling::CeilingArgs),
    /// Measure how far one folder of pictures is from another: Frechet and kernel distance, precision, recall
    Distance(distance::DistanceArgs),
    /// Compare models at several numbers of steps: a page with distances, diversity, latency and contact sheets, and JSON beside it
    Report(report::ReportArgs),
    /// Measure what text encoders make of words: is the nearest everyday noun the one that a word means?
    Words(words::WordsArgs),
}

/// The model that is measured, the network that looks at its pictures, and how it is told.
#[derive(ClapArgs)]
pub struct MeasureArgs {
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

/// The same, and in how many steps.
#[derive(ClapArgs)]
pub struct AtSteps {
    #[command(flatten)]
    measure: MeasureArgs,
    /// Numbers of steps to measure
    #[arg(long, value_delimiter = ',', default_value = "4,1")]
    steps: Vec<usize>,
    /// Pictures per prompt of a single object
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Contact sheet to write for each number of steps: `sheet.png` becomes `sheet-4.png`
    #[arg(long)]
    sheet: Option<PathBuf>,
}

impl MeasureArgs {
    fn open(&self) -> Result<(FeatureNet, Pipeline)> {
        Ok((FeatureNet::open(&self.features)?, pipeline(self.model.as_deref())?))
    }
}

fn pipeline(model: Option<&str>) -> Result<Pipeline> {
    Ok(Pipeline::load(&source::open(model)?, &LoadOptions::default())?)
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Judge(args) => judge::run(&args),
        Command::Quality(args) => quality::run(&args),
        Command::Prompts(args) => prompts::run(&args),
        Command::Suite(args) => suite::run(&args),
        Command::Ceiling(args) => ceiling::run(&args),
        Command::Distance(args) => distance::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Words(args) => words::run(&args),
    }
}

/// Writes a contact sheet of one number of steps: `sheet.png` becomes `sheet-4.png`.
fn write_sheet(path: &Path, steps: usize, sheet: &Picture) -> Result<()> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    write_png(&path.with_file_name(format!("{stem}-{steps}.png")), sheet)
}

fn write_png(path: &Path, picture: &Picture) -> Result<()> {
    Ok(write_bytes(path, &encode(picture, Format::Png, QUALITY, None)?)?)
}

pub fn with_bar<T>(what: &'static str, work: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
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
