//! `prima eval ceiling`: the drawings that a model learnt from, as they are and after its autoencoder.

use super::{MeasureArgs, with_bar};
use crate::out::say;
use anyhow::Result;
use clap::Args as ClapArgs;
use prima_data::Composer;
use prima_eval::{Suite, SuiteJudge};
use std::path::PathBuf;

#[derive(ClapArgs)]
pub struct CeilingArgs {
    #[command(flatten)]
    measure: MeasureArgs,
    /// Suite made by `prima eval suite`
    #[arg(long)]
    suite: PathBuf,
    /// The data set the suite was made from
    #[arg(long)]
    data: PathBuf,
}

pub fn run(args: &CeilingArgs) -> Result<()> {
    let suite = Suite::open(&args.suite)?;
    let (net, pipeline) = args.measure.open()?;
    let composer = Composer::open(&args.data, 0)?;
    let judge = SuiteJudge::new(&suite, &net)?;
    let rows = with_bar("nouns", |bar| judge.ceiling(&pipeline, &composer, bar))?;
    if args.measure.json {
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
