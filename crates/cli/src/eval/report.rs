//! `prima eval report`: several models beside each other, as a page and as JSON.

use super::distance::{By, seen};
use super::{pipeline, with_bar};
use crate::Usage;
use crate::out::say;
use anyhow::Result;
use clap::Args as ClapArgs;
use prima_checkpoint::export::{write_bytes, write_json};
use prima_eval::prompt_list;
use prima_eval::report::{Questions, Report, html, measure};
use std::path::{Path, PathBuf};

#[derive(ClapArgs)]
pub struct ReportArgs {
    /// `embedded`, a folder or a file (repeatable; several compare them)
    #[arg(long, required = true)]
    model: Vec<String>,
    /// Text file of prompts, one a line; `hundred` is the list of a hundred that nobody tunes on
    #[arg(long, value_name = "FILE", default_value = "hundred")]
    prompts: PathBuf,
    /// How many of the prompts
    #[arg(long, value_name = "N", default_value_t = 100)]
    count: usize,
    /// Pictures of each prompt
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Numbers of steps to measure
    #[arg(long, value_delimiter = ',', default_value = "4,1")]
    steps: Vec<usize>,
    /// A folder of real pictures, for distances
    #[arg(long, value_name = "DIR")]
    real: Option<PathBuf>,
    #[command(flatten)]
    by: By,
    /// The page to write; the numbers go beside it, into .json
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

pub fn run(args: &ReportArgs) -> Result<()> {
    if args.seeds == 0 || args.steps.is_empty() || args.steps.contains(&0) {
        return Err(Usage("--seeds and --steps want at least 1".to_owned()).into());
    }
    let prompts = if args.prompts == Path::new("hundred") {
        prompt_list::read(prompt_list::HUNDRED, None, args.count)?
    } else {
        prompt_list::open(&args.prompts, None, args.count)?
    };
    if prompts.is_empty() {
        return Err(Usage(format!("{} has no prompts", args.prompts.display())).into());
    }
    prima_checkpoint::whole_file::check_writable(&args.output)?;
    let networks = args.by.open()?;
    let real = args.real.as_ref().map(|folder| seen(&networks, folder)).transpose()?;
    let questions = Questions {
        prompts: &prompts,
        seeds: args.seeds,
        networks: &networks,
        real: real.as_ref(),
    };
    let mut results = Vec::new();
    for model in &args.model {
        let pipeline = pipeline(Some(model))?;
        for &steps in &args.steps {
            let measured = with_bar("pictures", |bar| {
                measure(pipeline.name(), &pipeline, steps, &questions, bar)
            });
            results.push(measured.map_err(|error| Usage(error.to_string()))?);
        }
    }
    let name = |folder: &PathBuf| folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let report = Report {
        features: networks.names(),
        prompts: prompts.len(),
        seeds: args.seeds,
        real: args
            .real
            .as_ref()
            .zip(real.as_ref())
            .map(|(folder, real)| (name(folder), real.features.len())),
        results,
    };
    write_json(&args.output.with_extension("json"), &serde_json::to_value(&report)?)?;
    write_bytes(&args.output, html(&report)?.as_bytes())?;
    say!("{}", args.output.display());
    Ok(())
}
